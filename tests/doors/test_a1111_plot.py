"""A1111's X/Y/Z plot over its API, on two tiny random models."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from clipskip.doors.http import build_app
from clipskip.spec import parse_infotext
from clipskip.sweep import Studio
from clipskip.weights import Library

BODY = {
    "prompt": "a red frog",
    "steps": 4,
    "width": 64,
    "height": 64,
    "seed": 5,
    "sampler_name": "Euler",
    "override_settings": {"sd_model_checkpoint": "tiny"},
}
HIRES = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.5}


@pytest.fixture(scope="module")
def client(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    more = tmp_path_factory.mktemp("more")
    weights = load_file(folder / "tiny.safetensors")
    weights["model.diffusion_model.out.2.bias"] = weights["model.diffusion_model.out.2.bias"] + 0.2
    with safe_open(folder / "tiny.safetensors", framework="pt") as file:
        save_file(weights, more / "other.safetensors", metadata=file.metadata())
    (more / "loras").mkdir()
    lora = {name: tensor * 2 for name, tensor in load_file(folder / "loras" / "ogre.safetensors").items()}
    save_file(lora, more / "loras" / "gnome.safetensors")
    studio = Studio(tmp_path_factory.mktemp("out"), Library((folder, more)))
    yield TestClient(build_app(studio), base_url="http://127.0.0.1:7861")
    studio.close()


def post(client: TestClient, path: str, **changes: Any) -> Any:
    return client.post(f"/sdapi/v1/{path}", json=BODY | changes)


def pixels(image: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(image))))


NOTHING = [0, "", []]
CLIP_SKIPS = [22, "1-3", []]


def arguments(*axes: list[Any], **switches: Any) -> list[Any]:
    """The script's arguments in A1111 1.10's order."""
    given = {"draw_legend": True, "include_lone_images": True, "include_sub_grids": False, "no_fixed_seeds": False}
    given |= {"vary_seeds_x": False, "vary_seeds_y": False, "vary_seeds_z": False, "margin_size": 0, "csv_mode": False}
    places = [*axes, *[NOTHING] * (3 - len(axes))]
    return [part for axis in places for part in axis] + list((given | switches).values())


def plot(client: TestClient, *axes: list[Any], switches: Any = None, **changes: Any) -> dict[str, Any]:
    args = arguments(*axes, **switches or {})
    answer = post(client, "txt2img", **{"steps": 2, "script_name": "X/Y/Z plot", "script_args": args} | changes)
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


def refused(client: TestClient, args: list[Any], **changes: Any) -> tuple[int, str, str]:
    answer = post(client, "txt2img", **{"script_name": "x/y/z plot", "script_args": args} | changes)
    return answer.status_code, answer.json()["field"], answer.json()["detail"]


def test_a_plot_of_clip_skips_gives_the_sheet_and_then_the_cells(client: TestClient) -> None:
    found = plot(client, CLIP_SKIPS)
    info = json.loads(found["info"])
    assert len(found["images"]) == len(info["infotexts"]) == 4
    assert pixels(found["images"][0]).shape[1] > 3 * 256
    assert [parse_infotext(text).fields["Clip skip"] for text in info["infotexts"]] == ["1", "1", "2", "3"]
    assert (info["all_seeds"], info["index_of_first_image"]) == ([5, 5, 5], 1)
    settings = {"sd_model_checkpoint": "tiny", "CLIP_stop_at_last_layers": 3}
    alone = post(client, "txt2img", steps=2, override_settings=settings).json()["images"][0]
    assert found["images"][3] == alone


def test_the_sheet_says_what_its_axes_are(client: TestClient) -> None:
    found = plot(client, CLIP_SKIPS, ["Seed", "7,8", []], switches={"include_lone_images": False})
    assert len(found["images"]) == 1
    fields = client.post("/sdapi/v1/png-info", json={"image": found["images"][0]}).json()["parameters"]
    assert fields["Script"] == "X/Y/Z plot"
    assert (fields["X Type"], fields["X Values"], fields["Y Values"]) == ("Clip skip", "1-3", "7,8")
    assert fields["Fixed Y Values"] == "7, 8"
    assert json.loads(found["info"])["all_seeds"] == [7, 7, 7, 8, 8, 8]


def test_axes_count_x_fastest_and_z_slowest(client: TestClient) -> None:
    axes = ["Steps", "1-3 (+2)", []], ["CFG scale", "2,5.5", []], ["Sampler", "", ["Euler", "Heun"]]
    found = plot(client, *axes, switches={"include_sub_grids": True, "draw_legend": False})
    info = json.loads(found["info"])
    cells = [parse_infotext(text).fields for text in info["infotexts"][3:]]
    assert len(found["images"]) == len(info["infotexts"]) == 3 + 8
    assert [one["Steps"] for one in cells] == ["1", "3"] * 4
    assert [one["CFG scale"] for one in cells] == ["2", "2", "5.5", "5.5"] * 2
    assert [one["Sampler"] for one in cells] == ["Euler"] * 4 + ["Heun"] * 4
    assert [pixels(one).shape for one in found["images"][:2]] == [(32, 64, 3), (32, 32, 3)]
    assert np.array_equal(pixels(found["images"][1])[:16, 16:], pixels(found["images"][4]))


def test_prompt_s_r_puts_each_value_in_the_place_of_the_first(client: TestClient) -> None:
    found = plot(client, [7, 'frog,newt,"a newt, green"', []])
    prompts = ["a red frog", "a red newt", "a red a newt, green"]
    assert json.loads(found["info"])["all_prompts"] == prompts
    assert [parse_infotext(t).prompt for t in json.loads(found["info"])["infotexts"][1:]] == prompts


def test_any_seed_is_drawn_once_for_all_cells(client: TestClient) -> None:
    seeds = json.loads(plot(client, CLIP_SKIPS, seed=-1)["info"])["all_seeds"]
    assert len(set(seeds)) == 1
    assert seeds[0] >= 0


def test_without_fixed_seeds_each_cell_draws_its_own(client: TestClient) -> None:
    found = json.loads(plot(client, CLIP_SKIPS, switches={"no_fixed_seeds": True}, seed=-1)["info"])
    assert len(set(found["all_seeds"])) == 3


def test_varied_seeds_count_up_along_their_axes(client: TestClient) -> None:
    """A1111's: X counts ones, Y counts the columns if X is varied too, Z likewise."""
    axes = CLIP_SKIPS, [4, "1,2", []], ["CFG Scale", "2,3", []]
    both = json.loads(plot(client, *axes, switches={"vary_seeds_x": True, "vary_seeds_z": True})["info"])
    assert both["all_seeds"] == [5, 6, 7, 5, 6, 7, 8, 9, 10, 8, 9, 10]
    down = json.loads(plot(client, *axes, switches={"vary_seeds_y": True})["info"])
    assert down["all_seeds"] == [5, 5, 5, 6, 6, 6] * 2
    status, field, _ = refused(client, arguments(CLIP_SKIPS, vary_seeds_x=True), seed=2**64 - 1)
    assert (status, field) == (422, "seed")


def test_a_variation_is_an_axis_and_without_a_seed_of_its_own_draws_one(client: TestClient) -> None:
    found = json.loads(plot(client, ["Var. strength", "0.1,0.2", []], [2, "8,9", []])["info"])
    assert found["all_subseeds"] == [8, 8, 9, 9]
    drawn = [json.loads(post(client, "txt2img", steps=1, subseed_strength=0.5).json()["info"]) for _ in range(2)]
    assert drawn[0]["all_subseeds"] != drawn[1]["all_subseeds"]


def test_margins_part_the_pictures_of_a_sheet(client: TestClient) -> None:
    widths = [pixels(plot(client, CLIP_SKIPS, switches={"margin_size": px})["images"][0]).shape[1] for px in (0, 40)]
    assert widths[1] - widths[0] >= 3 * (40 - 8)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "takes 18"),
        (arguments(["Styles", "a", []]), "'Styles' is not here; use one of Nothing, Seed, Var. seed"),
        (arguments([11, "tiny,huge", []]), "no model called 'huge'"),
        (arguments([5, "1,2", []]), "Hires steps is of a second pass; send enable_hr true"),
        (arguments([8, "frog,newt", []]), "'newt', which is not in the prompt"),
        (arguments([8, "a,b,c,d,e", []]), "4 have 24 orders and are the most"),
        (arguments([99, "1", []]), "'number 99' is not here"),
        (arguments([22, "0", []]), "1 is the last layer"),
        (arguments([22, "13", []]), "12"),
        (arguments([4, "20,100000000000000", []]), "use 1 to 150"),
        (arguments([22, "1\r2", []]), "not comma-separated text"),
        (arguments([22, "two", []]), "whole numbers, or a range"),
        (arguments([22, "5-1", []]), "empty or too long"),
        (arguments([22, "", []]), "values are empty"),
        (arguments([1, "1-1000000000000", []]), "over 64"),
        (arguments([1, "1-9", []], [4, "1-9", []]), "81 pictures; 64 is the most"),
        (arguments([7, "toad,newt", []]), "'toad', which is in neither prompt"),
        (arguments(["Sampler", "Euler", []]), "csv_mode"),
        (arguments(["Var. strength", "2", []]), "0 to 1"),
        (arguments(CLIP_SKIPS, margin_size=501), "margin_size is '501'; give whole pixels, 0 to 500"),
        (arguments(CLIP_SKIPS, margin_size=0.5), "margin_size is '0.5'; give whole pixels"),
        (arguments(CLIP_SKIPS, csv_mode="false"), "csv_mode is 'false'; give true or false"),
    ],
)  # fmt: skip
def test_a_plot_that_cannot_be_drawn_is_refused_with_the_reason(client: TestClient, args: list[Any], said: str) -> None:
    status, _, detail = refused(client, args)
    assert status == 422
    assert said in detail


def test_the_plot_is_among_the_scripts(client: TestClient) -> None:
    assert client.get("/sdapi/v1/scripts").json() == {"txt2img": ["x/y/z plot"], "img2img": []}
    info = client.get("/sdapi/v1/script-info").json()
    assert [(one["name"], len(one["args"])) for one in info] == [("x/y/z plot", 18)]
    assert "Clip skip" in info[0]["args"][0]["choices"]


def test_noise_settings_and_vaes_are_axes(client: TestClient) -> None:
    def cells(*axes: list[Any], sampler: str) -> list[dict[str, str]]:
        texts = json.loads(plot(client, *axes, sampler_name=sampler)["info"])["infotexts"][1:]
        return [dict(parse_infotext(text).fields) for text in texts]

    assert [cell["Eta"] for cell in cells(["Eta", "0.3,0.5", []], sampler="Euler a")] == ["0.3", "0.5"]
    churned = cells([13, "1,2", []], ["Sigma noise", "0.9,1.1", []], sampler="Euler")
    assert [(cell["Sigma churn"], cell["Sigma noise"]) for cell in churned] == [
        ("1", "0.9"), ("2", "0.9"), ("1", "1.1"), ("2", "1.1"),
    ]  # fmt: skip
    status, _, said = refused(client, arguments(["VAE", "nowhere", []]))
    assert status == 422 and "nowhere" in said
    assert len(plot(client, ["VAE", "", ["None", "Automatic"]])["images"]) == 3, "chosen in the menu"
    assert len(plot(client, ["VAE", "None,Automatic", []])["images"]) == 3


def alone(client: TestClient, **changes: Any) -> tuple[str, dict[str, str]]:
    """A picture and its settings, drawn by itself."""
    answer = post(client, "txt2img", **{"steps": 2} | changes).json()
    return answer["images"][0], dict(parse_infotext(json.loads(answer["info"])["infotexts"][0]).fields)


def test_checkpoints_are_an_axis(client: TestClient) -> None:
    found = plot(client, ["Checkpoint name", "", ["tiny", "other.safetensors"]], CLIP_SKIPS)
    for place, (model, skip) in enumerate([(m, s) for s in (1, 2, 3) for m in ("tiny", "other")], start=1):
        settings = {"sd_model_checkpoint": model, "CLIP_stop_at_last_layers": skip}
        assert found["images"][place] == alone(client, override_settings=settings)[0]
    assert plot(client, [11, "tiny,other", []])["images"][2] == found["images"][2], "typed, by its number"


def test_loras_are_an_axis_by_prompt_s_r(client: TestClient) -> None:
    prompts = [f"a frog <lora:{name}:{weight}>" for name, weight in (("ogre", 1), ("ogre", 0.5), ("gnome", 1))]
    tags = [prompt.removeprefix("a frog ") for prompt in prompts]
    found = plot(client, ["Prompt S/R", ",".join(tags), []], prompt=prompts[0])
    pictures = found["images"][1:]
    assert len(set(pictures)) == 3
    assert pictures == [alone(client, prompt=prompt)[0] for prompt in prompts]


def test_the_order_of_words_is_an_axis(client: TestClient) -> None:
    found = plot(client, ["Prompt order", "red,frog,a lake", []], prompt="a red frog, by a lake")
    assert json.loads(found["info"])["all_prompts"] == [
        "a red frog, by a lake", "a red a lake, by frog", "a frog red, by a lake", "a frog a lake, by red",
        "a a lake red, by frog", "a a lake frog, by red",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("axis", "field", "values", "setting"),
    [
        (["Hires steps", "1,3", []], "hr_second_pass_steps", [1, 3], "Hires steps"),
        (["Hires sampler", "", ["Euler a", "Heun"]], "hr_sampler_name", ["Euler a", "Heun"], "Hires sampler"),
        (["Hires upscaler", "", ["Lanczos", "None"]], "hr_upscaler", ["Lanczos", "None"], "Hires upscaler"),
        (["Denoising", "0.3,0.8", []], "denoising_strength", [0.3, 0.8], "Denoising strength"),
    ],
)  # fmt: skip
def test_settings_of_a_second_pass_are_axes(
    client: TestClient, axis: list[Any], field: str, values: list[Any], setting: str
) -> None:
    found = plot(client, axis, **HIRES)["images"][1:]
    drawn = [alone(client, **HIRES | {field: value}) for value in values]
    assert found == [image for image, _ in drawn]
    assert [fields[setting] for _, fields in drawn] == [str(value) for value in values]


def test_an_axis_that_is_refused_hides_no_other_reason(client: TestClient) -> None:
    status, field, said = refused(client, arguments(["Checkpoint name", "tiny,huge", []]), tiling=True)
    assert (status, field) == (422, "tiling")
    assert "tiling" in said and "no model called 'huge'" in said
