"""ComfyUI's nodes on a stand-in that keeps to its interface; what was run in the real one stands in the pack's README."""

import importlib.util
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comfy_stand_in
import numpy as np
import pytest
import torch
from PIL import Image

from clipskip.advise import Wanted, advise
from clipskip.errors import PromptError, SkipOutOfRange, SpecError
from clipskip.spec import LoraRef, Request, request_from_text

PACK = Path(__file__).parents[2] / "integrations/comfyui"
TOLERANCE = 1e-5
"""Of numbers near 1: float32, sums in another order."""
TEXT = "a red frog::1.3"


@pytest.fixture(scope="module")
def clips() -> dict[str, Any]:
    return {names: comfy_stand_in.Clip(names) for names in ("l", "lg")}


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, Any]]:
    comfy_stand_in.install(monkeypatch, str(tmp_path))
    spec = importlib.util.spec_from_file_location(
        "clipskip_nodes", PACK / "__init__.py", submodule_search_locations=[str(PACK)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "clipskip_nodes", module)
    spec.loader.exec_module(module)
    yield module.NODE_CLASS_MAPPINGS
    for name in [name for name in sys.modules if name.startswith("clipskip_nodes.")]:
        del sys.modules[name]


def theirs(clip: Any, layer: int, text: str = TEXT) -> Any:
    own = clip.clone()
    own.clip_layer(layer)
    return own.encode_from_tokens_scheduled(own.tokenize(text))


def near(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=TOLERANCE * other.abs().max().item())


@pytest.mark.parametrize("names", ["l", "lg"])
def test_every_clip_skip_of_one_pass_is_comfyuis_own_layer(
    names: str, clips: dict[str, Any], nodes: dict[str, Any]
) -> None:
    made, labels = nodes["EncodeAtClipSkips"]().encode(clips[names], TEXT, "1-12")
    assert labels[1] == "Clip Skip 2"
    for skip, conditioning in enumerate(made, 1):
        expected = theirs(clips[names], -skip)
        assert near(conditioning[0][0], expected[0][0])
        assert str(conditioning[0][1]) == str(expected[0][1])


def test_a_patched_clip_is_read_with_its_patches(clips: dict[str, Any], nodes: dict[str, Any]) -> None:
    patched = clips["l"].clone()
    key = "clip_l.transformer.text_model.encoder.layers.3.mlp.fc1.weight"
    patched.patches[key] = torch.randn(96, 64, generator=torch.Generator().manual_seed(1))
    made = nodes["EncodeAtClipSkips"]().encode(patched, TEXT, "3")[0][0][0][0]
    assert near(made, theirs(patched, -3)[0][0])
    assert not near(made, theirs(clips["l"], -3)[0][0])


def test_a_fraction_lies_between_layers_and_sdxls_encoders_have_one_each(
    clips: dict[str, Any], nodes: dict[str, Any]
) -> None:
    half, said = nodes["ClipSkip"]().apply(clips["lg"], "1.5")
    vectors = half.encode_from_tokens_scheduled(half.tokenize(TEXT))[0][0]
    assert said == "1.5" and near(vectors, (theirs(clips["lg"], -1)[0][0] + theirs(clips["lg"], -2)[0][0]) / 2)
    both, _ = nodes["ClipSkip"]().apply(clips["lg"], "2/5")
    vectors = both.clone().encode(TEXT)
    assert near(
        vectors, torch.cat([theirs(clips["lg"], -2)[0][0][..., :64], theirs(clips["lg"], -5)[0][0][..., 64:]], -1)
    )
    both.clip_layer(-3)
    assert near(both.encode(TEXT), theirs(clips["lg"], -3)[0][0]), "a later node's layer counts"


def test_what_comfyui_bends_is_refused(clips: dict[str, Any], nodes: dict[str, Any]) -> None:
    assert torch.equal(theirs(clips["l"], -13)[0][0], theirs(clips["l"], -1)[0][0]), "it reads the last layer"
    with pytest.raises(SkipOutOfRange, match="12 layers"):
        nodes["ClipSkip"]().apply(clips["l"], "13")
    with pytest.raises(SpecError, match="which a CLIP cannot say"):
        nodes["ClipSkip"]().apply(clips["l"], "[1:2:0.5]")
    with pytest.raises(SpecError, match="reads prompts with"):
        nodes["ClipSkip"]().apply(comfy_stand_in.Clip("t"), "2")


def test_a_clip_that_reads_otherwise_than_by_its_weights_is_refused(
    clips: dict[str, Any], nodes: dict[str, Any]
) -> None:
    class Changed(comfy_stand_in.Clip):
        def get_sd(self) -> dict[str, torch.Tensor]:
            return {name: tensor * 1.1 for name, tensor in super().get_sd().items()}

        def _read(self, name: str, sections: Any) -> Any:
            plain = comfy_stand_in.Clip.__new__(comfy_stand_in.Clip)
            plain.__dict__.update(self.__dict__)
            return plain._read(name, sections)

        def clone(self) -> "Changed":
            other = Changed.__new__(Changed)
            other.__dict__.update(self.__dict__)
            return other

    with pytest.raises(SpecError, match="use a whole number"):
        nodes["EncodeAtClipSkips"]().encode(Changed("l"), TEXT, "1-3")


def test_settings_of_any_tool_choose_the_layer_that_it_read(clips: dict[str, Any], nodes: dict[str, Any]) -> None:
    for settings, tool, skip in (
        ("-3", "comfyui", 3),
        ("2", "diffusers", 3),
        ("a frog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 512x512, Clip skip: 3", "a1111", 3),
    ):
        clip, said = nodes["ClipSkipFromSettings"]().apply(clips["l"], settings, tool)
        assert near(clip.encode_from_tokens_scheduled(clip.tokenize(TEXT))[0][0], theirs(clips["l"], -skip)[0][0])
        assert said.startswith(f"Clip Skip {skip}")
    with pytest.raises(SpecError):
        nodes["ClipSkipFromSettings"]().apply(clips["l"], "-13", "comfyui")


def test_a_schedule_has_ranges_and_a_phrase_its_own_layer(clips: dict[str, Any], nodes: dict[str, Any]) -> None:
    (schedule,) = nodes["ClipSkipSchedule"]().encode(clips["l"], TEXT, "1", "3", 0.4)
    assert [(more["start_percent"], more["end_percent"]) for _, more in schedule] == [(0.0, 0.4), (0.4, 1.0)]
    assert near(schedule[1][0], theirs(clips["l"], -3)[0][0])
    (phrase,) = nodes["ClipSkipOfPhrase"]().encode(clips["l"], "a red frog", "1", "red frog", "3")
    first, third = theirs(clips["l"], -1, "a red frog")[0][0], theirs(clips["l"], -3, "a red frog")[0][0]
    expected = first.clone()
    expected[:, 2:4] = third[:, 2:4]
    assert near(phrase[0][0], expected)
    with pytest.raises(PromptError, match="no phrase"):
        nodes["ClipSkipOfPhrase"]().encode(clips["l"], "a red frog", "1", "owl", "3")


class FakeModel:
    calls = 0


class FakeVae:
    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.interpolate(latent[:, :3], scale_factor=8).movedim(1, -1)


def test_a_sweep_gives_grid_pictures_and_page_and_keeps_what_it_has(
    clips: dict[str, Any], nodes: dict[str, Any], tmp_path: Path
) -> None:
    model, vae, sweep = FakeModel(), FakeVae(), nodes["ClipSkipSweep"]()
    settings = {"steps": 4, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal", "width": 64, "height": 64}
    grid, pictures, page = sweep.draw(model, clips["l"], vae, "a frog", "blurry", "1-3", "1,2", **settings)
    assert len(pictures) == 6 and grid.shape[0] == 1 and model.calls == 6
    assert Path(page).read_text().count("data:image/png") >= 6
    picture = next(Path(page).parent.glob("row1-*3.png"))
    assert np.abs(np.asarray(Image.open(picture)) / 255 - pictures[5][0].numpy()).max() < 1e-6
    with Image.open(picture) as opened:
        asked = request_from_text(opened.text["parameters"])
    assert (str(asked.clip_skip), asked.seed, asked.prompt) == ("3", 2, "a frog")
    sweep.draw(model, clips["l"], vae, "a frog", "blurry", "1-4", "1,2", **settings)
    assert model.calls == 8, "only the new column is drawn"
    more = {"model_with_lora": FakeModel(), "clip_with_lora": clips["l"].clone()}
    assert len(sweep.draw(model, clips["l"], vae, "a frog", "", "1-2", "1", **more, **settings)[1]) == 4
    with pytest.raises(SpecError, match="connect both"):
        sweep.draw(model, clips["l"], vae, "a frog", "", "1-2", "1", model_with_lora=model, **settings)
    with pytest.raises(SpecError, match="whole numbers"):
        sweep.draw(model, clips["l"], vae, "a frog", "", "1-2", "any", **settings)


def test_layers_are_a_picture_and_tables(clips: dict[str, Any], nodes: dict[str, Any]) -> None:
    picture, tables = nodes["ClipSkipLayers"]().look(clips["l"], "a red frog", "L")
    assert picture.shape[3] == 3 and 0 <= picture.min() < picture.max() <= 1
    assert "12 layers" in tables and "frog" in tables
    with pytest.raises(SpecError, match="one text encoder"):
        nodes["ClipSkipLayers"]().look(clips["l"], "a red frog", "G")


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch, nodes: dict[str, Any], folder: Path) -> None:
    """ComfyUI's folders hold the tiny model and its LoRA."""
    places = {"checkpoints": folder / "tiny.safetensors", "loras": folder / "loras" / "ogre.safetensors"}
    finds = sys.modules["folder_paths"]
    monkeypatch.setattr(finds, "get_full_path_or_raise", lambda kind, name: str(places[kind]), raising=False)


def test_lora_uptake_is_a_verdict_a_number_and_a_plot(
    nodes: dict[str, Any], files: None, model: Any, library: Any
) -> None:
    asked = {"checkpoint": "tiny.safetensors", "lora": "ogre.safetensors", "lora_weight": 1.0, "negative": ""}
    node = nodes["ClipSkipUptake"]()
    with torch.inference_mode():  # as ComfyUI runs nodes
        verdict, share, best, plot = node.ask(positive="swamp, ogre", clip_skips="2,12", drawn_at=1, **asked)
    request = Request(prompt="swamp, ogre", loras=(LoraRef(name="ogre"),))
    advice = advise(model, Wanted(request=request, skips=(1, 2, 12)), library)
    assert advice.prompted is not None
    (expected,) = advice.prompted.loras
    assert share == pytest.approx(expected.uptake[0], abs=0.02)  # the model is opened anew, in bfloat16
    assert best == str((1, 2, 12)[int(np.argmax(expected.uptake))])
    assert verdict.startswith(f"ogre is taken up most at Clip Skip {best}; at 1, where you draw, {share:.0%}")
    assert "cannot act from Clip Skip 10 on" in verdict
    assert plot.shape == (1, 400, 640, 3) and 0 <= plot.min() < plot.max() <= 1
    with pytest.raises(SpecError, match="a prompt that calls the LoRA"):
        node.ask(positive=" ", clip_skips="2", drawn_at=1, **asked)


def test_a_curve_goes_through_its_values(nodes: dict[str, Any]) -> None:
    drawn = sys.modules["clipskip_nodes.plots"].curves("title", [1, 2, 3], {"all": [0.0, 0.5, 1.0]}, chosen=None)
    blue = np.argwhere((drawn == (29, 111, 216)).all(axis=-1) & (np.arange(drawn.shape[0]) < 360)[:, None])
    ends = [blue[blue[:, 1] == x][:, 0].mean() for x in (60, 340, 620)]
    assert ends == pytest.approx([346, 201, 56], abs=4.5), "0% below, 100% on top, one half half-way"


def test_every_node_has_tooltips_a_help_page_and_a_place_in_the_readme(nodes: dict[str, Any]) -> None:
    names = json.loads(json.dumps(list(nodes)))
    module = sys.modules["clipskip_nodes"]
    readme = (PACK / "README.md").read_text()
    for name in names:
        assert (PACK / "web/docs" / f"{name}.md").exists()
        assert f"| {module.NODE_DISPLAY_NAME_MAPPINGS[name]} |" in readme
        assert nodes[name].DESCRIPTION and callable(getattr(nodes[name], nodes[name].FUNCTION))
        assert nodes[name].INPUT_TYPES()["required"]


WORKFLOWS = sorted((PACK / "example_workflows").glob("*.json"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_an_example_workflow_gives_our_nodes_what_they_take(path: Path, nodes: dict[str, Any]) -> None:
    graph = json.loads(path.read_text())
    ours = [node for node in graph["nodes"] if node["type"] in nodes]
    assert ours
    for node in ours:
        kind = nodes[node["type"]]
        taken = kind.INPUT_TYPES()
        every = {**taken["required"], **taken.get("optional", {})}
        linked = {one["name"] for one in node["inputs"] if one["link"] is not None}
        typed = [one["name"] for one in node["inputs"] if "widget" in one]
        assert len(typed) == len(node["widgets_values"])
        assert set(taken["required"]) <= linked | set(typed) <= set(every)
        assert [out["type"] for out in node["outputs"]] == list(kind.RETURN_TYPES)
        for name, value in zip(typed, node["widgets_values"], strict=True):
            wanted = every[name][0]
            kinds = {"STRING": str, "INT": int, "FLOAT": float}
            assert isinstance(wanted, list) or isinstance(value, kinds[wanted])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_an_example_workflow_s_links_meet_sockets_of_their_type_and_it_has_a_picture(path: Path) -> None:
    graph = json.loads(path.read_text())
    by_id = {node["id"]: node for node in graph["nodes"]}
    for number, source, slot, target, place, kind in graph["links"]:
        out, into = by_id[source]["outputs"][slot], by_id[target]["inputs"][place]
        assert number in out["links"] and into["link"] == number
        assert out["type"] == kind and into["type"] in (kind, "*")
    with Image.open(path.with_suffix(".jpg")) as picture:
        assert picture.format == "JPEG" and min(picture.size) > 300


def test_the_registry_is_told_what_it_wants() -> None:
    """The rules of https://docs.comfy.org/registry/specifications, as they stood in November 2026."""
    project = tomllib.loads((PACK / "pyproject.toml").read_text())
    about, comfy = project["project"], project["tool"]["comfy"]
    assert re.fullmatch(r"[a-z](?:[._-]?[a-z0-9])*", about["name"]) and len(about["name"]) < 100
    assert "comfyui" not in about["name"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", about["version"])
    assert about["license"].keys() <= {"file", "text"} and about["urls"]["Repository"].startswith("https://github.com/")
    assert comfy["PublisherId"] and comfy["DisplayName"] == "Clip Skip"
    assert comfy.keys() <= {"PublisherId", "DisplayName", "Icon", "Banner", "requires-comfyui", "includes"}
    assert re.fullmatch(r">=\d+\.\d+\.\d+", comfy["requires-comfyui"])
