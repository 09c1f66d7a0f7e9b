"""Names in a request become the files that are meant, and no others."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_sdxl
import torch
from safetensors.torch import load_file, save_file
from tiny_sd1 import WIDTH

from clipskip.errors import NotFound, SpecError, UnsafeFile
from clipskip.spec import LoraRef, Request, Start, render_infotext, request_from_text
from clipskip.sweep import Model, warnings_of
from clipskip.sweep.resolve import resolve
from clipskip.weights import Library, read_facts


@pytest.fixture
def words(tmp_path: Path) -> Library:
    """Embeddings `bad`, and `cat`, a pickle that nobody allowed."""
    (tmp_path / "embeddings").mkdir()
    save_file({"emb_params": torch.ones(2, WIDTH)}, tmp_path / "embeddings" / "bad.safetensors")
    torch.save({"string_to_param": {"*": torch.ones(1, WIDTH)}}, tmp_path / "embeddings" / "cat.pt")
    return Library((tmp_path,))


def test_an_embedding_whose_name_is_only_part_of_a_word_is_not_called(model: Model, words: Library) -> None:
    render, extras = resolve(Request(prompt="a badge, a category", width=64, height=64), model.facts, words)
    assert (render.embeddings, extras.embeddings) == ((), ())


def test_embeddings_are_called_in_either_prompt(model: Model, words: Library) -> None:
    render, extras = resolve(
        Request(prompt="a badge", negative_prompt="(BAD:1.2)", width=64, height=64), model.facts, words
    )
    assert [one.name for one in render.embeddings] == ["bad"]
    assert extras.embeddings[0].vectors[0].shape == (2, WIDTH)


def test_a_pickled_embedding_that_is_called_needs_the_switch(model: Model, words: Library) -> None:
    with pytest.raises(UnsafeFile, match="--allow-pickle"):
        resolve(Request(prompt="a cat", width=64, height=64), model.facts, words)
    render, _ = resolve(Request(prompt="a cat", width=64, height=64), model.facts, words, allow_pickle=True)
    assert [one.name for one in render.embeddings] == ["cat"]


def test_a_pickled_lora_needs_the_switch(model: Model, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "loras").mkdir()
    torch.save(load_file(folder / "loras" / "ogre.safetensors"), tmp_path / "loras" / "old.pt")
    with pytest.raises(UnsafeFile, match="--allow-pickle"):
        resolve(Request(prompt="a <lora:old:1>", width=64, height=64), model.facts, Library((tmp_path,)))
    render, _ = resolve(
        Request(prompt="a <lora:old:1>", width=64, height=64), model.facts, Library((tmp_path,)), allow_pickle=True
    )
    assert [one.name for one in render.loras] == ["old"]


def test_a_lora_of_a_tag_and_one_beside_the_prompt_are_both_applied_in_order(model: Model, library: Library) -> None:
    # A tag and --lora are two LoRAs, each at its own strength; two tags of one name share the last one's, as in A1111.
    request = Request(
        prompt="a <lora:ogre:1><lora:ogre:0.5>",
        loras=(LoraRef(name="ogre", text_encoder=-0.25, unet=-0.25),),
        width=64,
        height=64,
    )
    render, _ = resolve(request, model.facts, library)
    assert [one.text_encoder for one in render.loras] == [0.5, 0.5, -0.25]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"sampler": "DDIM", "scheduler": "normal"}, "schedule type normal changes nothing: DDIM visits"),
        ({"sampler": "Euler", "eta": 0.0}, "eta 0 changes nothing: Euler has none"),
        ({"sampler": "Euler a", "s_churn": 3.0}, "sigma churn 3 changes nothing: Euler a has none"),
        ({"sampler": "Euler a", "s_noise": 1.1}, "sigma noise 1.1 changes nothing: Euler a"),
        ({"sampler": "Euler", "s_noise": 1.1}, "sigma noise 1.1 changes nothing: Euler"),
    ],
)
def test_a_setting_that_the_sampler_does_not_take_is_said(
    model: Model, words: str, asked: dict[str, Any], tmp_path: Path
) -> None:
    request = Request(prompt="a cat", width=64, height=64, seed=5, **asked)
    render, extras = resolve(request, model.facts, Library((tmp_path,)))
    plain, _ = resolve(
        replace(request, eta=None, s_churn=0.0, s_noise=1.0, scheduler="Automatic"), model.facts, Library(())
    )
    assert render == plain
    assert any(words in line for line in warnings_of(request, extras))


def test_the_samplers_own_eta_is_no_setting_and_another_is(model: Model) -> None:
    def eta(sampler: str, asked: float) -> float | None:
        request = Request(prompt="a cat", width=64, height=64, sampler=sampler, eta=asked)
        return resolve(request, model.facts, Library(()))[0].eta

    assert (eta("Euler a", 1.0), eta("DDIM", 0.0)) == (None, None)
    assert (eta("Euler a", 0.0), eta("DDIM", 1.0)) == (0.0, 1.0)


def test_a_picture_to_begin_at_that_is_not_there_is_an_error_with_its_hash(model: Model) -> None:
    request = Request(prompt="a cat", width=64, height=64, start=Start(hash="ab" * 16))
    with pytest.raises(SpecError, match=r"abababababab.*--init"):
        resolve(request, model.facts, Library(()))


def test_names_in_prompts_and_settings_open_no_paths(model: Model, folder: Path, tmp_path: Path) -> None:
    lora = folder / "loras" / "ogre.safetensors"
    empty = Library((tmp_path,))
    with pytest.raises(NotFound, match="no LoRA called"):
        resolve(Request(prompt=f"a <lora:{lora}:1>", width=64, height=64), model.facts, empty)
    typed = Request(prompt="a", loras=(LoraRef(name=str(lora)),), width=64, height=64)
    assert [one.name for one in resolve(typed, model.facts, empty)[0].loras] == ["ogre"]


@pytest.mark.parametrize("name", ["/etc/passwd", "~root", "../../x.safetensors", "C:\\models\\x.safetensors.ckpt"])
def test_no_name_of_a_settings_text_looks_like_a_path(name: str) -> None:
    line = f'a\nSteps: 20, Sampler: Euler a, CFG scale: 7, Model: "{name}", VAE: "{name}", AddNet Model 1: "{name}"'
    for asked in (
        request_from_text(line.replace("\\", "\\\\")),
        request_from_text(json.dumps({"prompt": "a", "Model": name, "vae": name, "loras": [[name, 1]]})),
    ):
        names = (asked.model, asked.vae, asked.loras[0].name)
        for found in names:
            assert (
                found
                and not {"/", "\\"} & set(found)
                and found[0] != "~"
                and not found.endswith((".safetensors", ".ckpt"))
            )


def test_a_comfyui_prompts_embeddings_are_found_by_their_names(model: Model, words: Library) -> None:
    asked = Request(prompt="bad embedding:BAD.safetensors, x", emphasis="ComfyUI", width=64, height=64)
    render, _ = resolve(asked, model.facts, words)
    assert [one.name for one in render.embeddings] == ["bad"]
    with pytest.raises(NotFound, match="'worse'"):
        resolve(replace(asked, negative_prompt="embedding:worse"), model.facts, words)


def test_a_comfyui_pictures_settings_ask_for_it_again(model: Model, folder: Path) -> None:
    library = Library((folder,))
    asked = Request(
        prompt="a (fox:1.2) #1 <lora:ogre:1>", loras=(LoraRef(name="ogre", text_encoder=0.5, unet=-0.25),),
        emphasis="ComfyUI", width=64, height=64, seed=5,
    )  # fmt: skip
    render, _ = resolve(asked, model.facts, library)
    assert render.prompt == asked.prompt and len(render.loras) == 1
    again = request_from_text(render_infotext(render))
    assert again.unused == () and resolve(again, model.facts, library)[0].key == render.key


@pytest.mark.parametrize(
    ("size", "near"),
    [
        ((1024, 1024), None),
        ((832, 1216), None),
        ((1000, 1000), None),
        ((2048, 512), None),
        ((512, 768), "0.38 times that; its own size of the nearest shape is 832x1216"),
        ((512, 512), "its own size of the nearest shape is 1024x1024"),
        ((1536, 1024), "1.5 times that; its own size of the nearest shape is 1216x832"),
        ((640, 360), "its own size of the nearest shape is 1344x768"),
    ],
)
def test_a_size_far_from_sdxls_own_is_told_with_the_one_of_the_nearest_shape(
    size: tuple[int, int], near: str | None, tmp_path: Path
) -> None:
    facts = replace(read_facts(tiny_sdxl.write(tiny_sdxl.sdxl(), tmp_path / "xl.safetensors")), native_px=1024)
    asked = Request(prompt="a frog", width=size[0], height=size[1])
    notes = resolve(asked, facts, Library((tmp_path,)))[1].notes
    assert bool(notes) == (near is not None) and all(near in note for note in notes)


def test_other_families_and_models_of_other_sizes_have_no_shapes_of_their_own(model: Model, tmp_path: Path) -> None:
    facts = read_facts(tiny_sdxl.write(tiny_sdxl.sdxl(), tmp_path / "xl.safetensors"))
    asked = Request(prompt="a frog", width=2048, height=256)
    for known in (model.facts, facts):
        assert resolve(asked, known, Library((tmp_path,)))[1].notes == ()
