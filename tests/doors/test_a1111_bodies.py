"""Bodies as A1111's clients send them: taken as A1111 takes them, or refused with every reason."""

import base64
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from safetensors.torch import load_file, save_file

from clipskip.doors.http import build_app
from clipskip.doors.http.a1111.bodies import ImageBody, PictureBody
from clipskip.doors.http.a1111.fields import NEUTRAL, SILENT
from clipskip.doors.http.a1111.kept_options import DEFAULTS
from clipskip.image import picture_infotext
from clipskip.spec import parse_infotext
from clipskip.sweep import Studio
from clipskip.weights import Library

SENT = [
    sent
    for name in ("a1111-bodies", "more-bodies")
    for sent in json.loads((Path(__file__).parent / "clients" / f"{name}.json").read_text())
]
"""What clients send, the second file by their kinds."""
BODY = {"prompt": "a red frog", "steps": 2, "width": 64, "height": 64, "seed": 5, "sampler_name": "Euler"}
TINY = {"sd_model_checkpoint": "tiny"}
CLIP_SKIP = "CLIP_stop_at_last_layers"
VAE = "vae-ft-mse-840000-ema-pruned"
STYLES = 'name,prompt,negative_prompt\nPhoto,"photo of {prompt}, sharp",blurry\nInk,ink drawing,\n'


@pytest.fixture(scope="module")
def studio(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    models = tmp_path_factory.mktemp("a1111") / "models"
    models.mkdir()
    (models / "tiny.safetensors").write_bytes((folder / "tiny.safetensors").read_bytes())
    (models / "VAE").mkdir()
    start = "first_stage_model."
    weights = {
        name.removeprefix(start): one for name, one in load_file(models / "tiny.safetensors").items() if start in name
    }
    weights["decoder.conv_out.bias"] = weights["decoder.conv_out.bias"] + 0.3
    save_file(weights, models / "VAE" / f"{VAE}.safetensors")
    (models.parent / "styles.csv").write_text(STYLES, "utf-8-sig")
    found = Studio(tmp_path_factory.mktemp("out"), Library((models,)))
    yield found
    found.close()


@pytest.fixture(scope="module")
def client(studio: Studio) -> TestClient:
    client = TestClient(build_app(studio), base_url="http://127.0.0.1:7861")
    assert client.post("/sdapi/v1/options", json=TINY).status_code == 200
    return client


@pytest.fixture(autouse=True)
def as_it_was(client: TestClient) -> Iterator[None]:
    """The options that a test sets are A1111's own again for the next."""
    yield
    client.post("/sdapi/v1/options", json={name: value for name, value in DEFAULTS.items() if "sd_" not in name})


def png(mode: str = "RGB", size: tuple[int, int] = (16, 16)) -> bytes:
    colours = np.random.default_rng(0).integers(0, 256, (*size[::-1], len(mode)), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(colours).save(file, "PNG")
    return file.getvalue()


FROG = base64.b64encode(png()).decode()


def filled(value: Any) -> Any:
    """The body with pictures, and the model's title, in the places that name them."""
    known = {
        "DATA_URL_OF_A_PNG": f"data:image/png;base64,{FROG}",
        "BASE64_OF_A_PNG": FROG,
        "BASE64_OF_A_MASK": FROG,
        "MODEL_TITLE": "tiny",
    }
    if isinstance(value, dict):
        return {name: filled(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner) for inner in value]
    return known.get(value, value) if isinstance(value, str) else value


def post(client: TestClient, path: str = "txt2img", **changes: Any) -> Any:
    return client.post(f"/sdapi/v1/{path}", json=BODY | changes)


def drawn(client: TestClient, path: str = "txt2img", **changes: Any) -> tuple[list[str], dict[str, Any]]:
    """The pictures and what is said of them."""
    answer = post(client, path, **changes)
    assert answer.status_code == 200, answer.text
    return answer.json()["images"], json.loads(answer.json()["info"])


def reasons(answer: Any) -> dict[str, str]:
    """Every reason of a refusal, by its field."""
    assert answer.status_code == 422, answer.text
    return {error["field"]: error["detail"] for error in answer.json()["errors"]}


@pytest.mark.parametrize("sent", SENT, ids=lambda sent: sent["client"])
def test_what_a_client_sends_is_drawn(client: TestClient, sent: dict[str, Any]) -> None:
    answer = client.post(sent["path"], json=filled(sent["body"]))
    assert answer.status_code == 200, answer.text
    info = json.loads(answer.json()["info"])
    body = sent["body"]
    asked = (body.get("override_settings") or {}).get(CLIP_SKIP) or body.get("clip_skip") or 1
    assert info["clip_skip"] == (2 if "infotext" in body else asked)
    assert len(answer.json()["images"]) == int(body.get("batch_size") or 1)


def test_what_a1111_does_not_know_is_left_out_and_said(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "clipskip.http")
    images, info = drawn(client, url="http://x", auth="", image_similarity=0.4, selection_info={"left": 0}, s_tmax=0)
    assert info["clipskip_ignored"] == ["url", "auth", "image_similarity", "selection_info"]
    assert images == drawn(client)[0]
    assert caplog.messages == ["ignored, as A1111 does: url, auth, image_similarity, selection_info"]


def test_names_from_outside_reach_the_log_in_one_harmless_line(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "clipskip.http")
    drawn(client, **{"\x1b[2J\n\u202eevil": 1, "n" * 5000: 1})
    (line,) = caplog.messages
    assert line.isprintable()
    assert len(line) < 700


@pytest.mark.parametrize("name", [CLIP_SKIP, "clip_skip"])
def test_a_clip_skip_among_the_fields_is_obeyed_and_said(client: TestClient, name: str) -> None:
    images, info = drawn(client, **{name: 3})
    assert (info["clip_skip"], info["clipskip_ignored"]) == (3, [])
    assert info["clipskip_notes"] == [f"{name} 3 is obeyed, though A1111 looks for it in override_settings only"]
    assert images == drawn(client, override_settings={CLIP_SKIP: 3})[0]


def test_a_clip_skip_that_is_overruled_is_said(client: TestClient) -> None:
    _, info = drawn(client, clip_skip=3, override_settings={CLIP_SKIP: 2})
    assert info["clip_skip"] == 2
    assert info["clipskip_notes"] == ["clip_skip is overruled by the override_settings' Clip Skip 2"]
    _, info = drawn(client, clip_skip=2, override_settings={CLIP_SKIP: 2})
    assert info["clipskip_notes"] == []


def test_a_second_pass_of_a_size_needs_no_scale(client: TestClient) -> None:
    sized = {"hr_resize_x": 96, "hr_resize_y": 128}
    images, info = drawn(client, **HIRES | sized | {"hr_scale": 0})
    assert (images, info["infotexts"]) == (
        drawn(client, **HIRES | sized)[0],
        drawn(client, **HIRES | sized)[1]["infotexts"],
    )
    assert size(images[0]) == (24, 32)


def test_sd_nexts_name_of_clip_skip_counts_among_the_options_too(client: TestClient) -> None:
    assert drawn(client, override_settings={"clip_skip": 4})[1]["clip_skip"] == 4


@pytest.mark.parametrize("name", ["clipSkip", "Clip skip", "CLIP_skip", "clip_stop_at_last_layers"])
def test_a_clip_skip_in_another_spelling_is_never_lost(client: TestClient, name: str) -> None:
    assert drawn(client, override_settings={name: 4})[1]["clip_skip"] == 4
    _, info = drawn(client, **{name: 3})
    assert (info["clip_skip"], info["clipskip_ignored"]) == (3, [])
    _, info = drawn(client, **{name: 3, CLIP_SKIP: 2})
    assert (info["clip_skip"], info["clipskip_ignored"]) == (2, [name])
    assert post(client, **{name: 13}).status_code == 422


TYPED = {
    "seed": "5", "steps": 2.0, "cfg_scale": "7.0", "width": "64", "height": 64.0, "subseed": "-1",
    "subseed_strength": "0", "batch_size": "1", "n_iter": 1.0, "send_images": "true", "save_images": "false",
    "restore_faces": "false", "tiling": 0, "denoising_strength": None, "styles": None, "sampler_index": "",
    "override_settings": {CLIP_SKIP: 2.0, "eta_noise_seed_delta": 0.0, "samples_save": "false"}, "scheduler": "",
}  # fmt: skip


def test_values_are_converted_as_a1111_converts_them(client: TestClient) -> None:
    assert drawn(client, **TYPED)[0] == drawn(client, override_settings={CLIP_SKIP: 2})[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", "NaN"), ("steps", 2.5), ("steps", "many"), ("seed", "1e400"), ("cfg_scale", "inf"), ("cfg_scale", "nan"),
     ("cfg_scale", 0), ("width", "64px"), ("batch_size", 0), ("seed", 2**64), ("send_images", "perhaps"),
     ("prompt", ["a"]), ("override_settings", []), ("styles", "Photo"), ("width", 63)],
)  # fmt: skip
def test_what_is_no_such_value_is_refused_by_name(client: TestClient, name: str, value: Any) -> None:
    assert list(reasons(post(client, **{name: value}))) == [name]


@pytest.mark.parametrize("path", ["/sdapi/v1/txt2img", "/sdapi/v1/options", "/v1/prompt"])
def test_a_body_may_begin_with_a_byte_order_mark(client: TestClient, path: str) -> None:
    content = json.dumps({name: BODY[name] for name in BODY if path.endswith("img") or name == "prompt"})
    answer = client.post(path, content=b"\xef\xbb\xbf" + content.encode(), headers={"content-type": "application/json"})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("path", ["txt2img", "options"])
@pytest.mark.parametrize("kind", [None, "text/plain;charset=UTF-8", "application/x-www-form-urlencoded"])
def test_a_body_is_json_whatever_its_type_is_called(client: TestClient, path: str, kind: str | None) -> None:
    content = json.dumps(BODY if path == "txt2img" else {CLIP_SKIP: 2})
    answer = client.post(f"/sdapi/v1/{path}", content=content, headers={"content-type": kind} if kind else {})
    assert answer.status_code == 200, answer.text
    assert client.get("/sdapi/v1/options").json()[CLIP_SKIP] == (1 if path == "txt2img" else 2)


IDLE_PAGE = {
    "API payload": {"args": []}, "Comments": {"args": []}, "Extra options": {"args": []}, "Hypertile": {"args": []},
    "Refiner": {"args": [False, "", 0.8]}, "Sampler": {"args": [20, "DPM++ 2M", "Automatic"]},
    "Seed": {"args": [-1, False, -1, 0, 0, 0]}, "Soft inpainting": {"args": [False, 1, 0.5, 4, 0, 0.5, 2]},
    "ControlNet": {"args": [{"enabled": False, "module": "none"}, {"enabled": False}]},
    "ADetailer": {"args": [False, False, {"ad_model": "face_yolov8n.pt"}, {"ad_model": "None"}]},
}  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"styles": ["None"]},
        {"styles": [""]},
        {"script_name": "None", "script_args": []},
        {"alwayson_scripts": IDLE_PAGE},
        {"alwayson_scripts": {"ADetailer": {"args": [True, False, {"ad_model": "None"}]}}},
        {"alwayson_scripts": {"ADetailer": {"args": [{"ad_model": "None"}]}, "ControlNet": {"args": []}, "X": {}}},
        {"tiling": False, "restore_faces": False, "refiner_checkpoint": "None", "refiner_switch_at": 0.8},
        {"enable_hr": False, "hr_scale": "1.0", "hr_upscaler": "ESRGAN_4x", "denoising_strength": 7},
        {"eta": 0, "s_churn": 0.0, "s_tmin": 0, "s_tmax": 0, "s_noise": 1, "s_min_uncond": 0},
        {"seed_resize_from_h": -1, "seed_resize_from_w": 0, "subseed_strength": 0, "comments": {}},
        {"initial_noise_multiplier": 1.0, "disable_extra_networks": False, "token_merging_ratio": 0.0},
        {"override_settings": {"sd_vae": "Automatic", "ddim_discretize": "uniform", "sd_hypernetwork": "None"}},
        {"override_settings": {"comma_padding_backtrack": 20.0, "img2img_fix_steps": False, "samples_format": "png"}},
    ],
)
def test_what_changes_nothing_changes_nothing(client: TestClient, changes: dict[str, Any]) -> None:
    images, info = drawn(client, **changes)
    assert (images, info["clipskip_ignored"]) == (drawn(client)[0], [])


def test_every_reason_is_told_at_once_and_logged(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    wrong = {
        "tiling": True, "restore_faces": "true", "refiner_checkpoint": "sd_xl_refiner", "script_name": "Prompt matrix",
        "alwayson_scripts": {"ControlNet": {"args": [{"enabled": True}]}}, "steps": "many", "sampler_name": "Eulr",
        "override_settings": {CLIP_SKIP: 0, "face_restoration": True, "sd_model_checkpoint": "no such"},
        "styles": ["Nowhere"], "n_iter": 60, "batch_size": 60,
    }  # fmt: skip
    answer = post(client, **wrong)
    named = {
        "tiling",
        "restore_faces",
        "refiner_checkpoint",
        "script_name",
        "alwayson_scripts",
        "steps",
        "sampler_name",
    }
    named |= {CLIP_SKIP, "face_restoration", "sd_model_checkpoint", "n_iter"}
    assert named <= set(reasons(answer))
    assert all(error["detail"] in answer.json()["detail"] for error in answer.json()["errors"])
    logged = [message for message in caplog.messages if message.startswith("422 POST /sdapi/v1/txt2img: ")]
    assert len(logged) == len(answer.json()["errors"]) >= len(named)


WRONG_FILES = {
    "prompt": "<lora:nope:1> <lora:nil:1> x", "styles": ["nil"], "refiner_checkpoint": "nil", "sampler_index": "nil",
    "sampler_name": None, "scheduler": "nil", "enable_hr": True, "hr_upscaler": "nil", "hr_sampler_name": "nil",
    "hr_prompt": "<lora:nought:1>", "clip_skip": 44, "override_settings": {"sd_vae": "nil", "samples_format": "bmp"},
}  # fmt: skip
WRONG_PICTURE = {
    "init_images": ["@@"], "mask": "@@", "inpainting_fill": 9, "resize_mode": 7, "scheduler": "nil",
    "mask_blur": 99, "prompt": "<lora:nil:1>",
}  # fmt: skip


@pytest.mark.parametrize(
    ("path", "wrong", "fields"),
    [
        ("txt2img", WRONG_FILES, {*WRONG_FILES, "sd_vae", "samples_format", "lora"}
            - {"prompt", "override_settings", "hr_prompt", "enable_hr", "sampler_name"}),
        ("img2img", WRONG_PICTURE, {*WRONG_PICTURE, "lora"} - {"prompt"}),
        ("txt2img", {"script_name": "X/Y/Z plot", "script_args": [1], "prompt": "<lora:nil:1>", "tiling": True},
            {"script_args", "lora", "tiling"}),
    ],
)  # fmt: skip
def test_no_reason_hides_another(client: TestClient, path: str, wrong: dict[str, Any], fields: set[str]) -> None:
    answer = post(client, path, **wrong)
    assert set(reasons(answer)) == fields
    missing = [word for word in ("nope", "nil", "nought") if f"<lora:{word}" in json.dumps(wrong)]
    assert all(f"no LoRA called '{word}'" in answer.json()["detail"] for word in missing)


def test_a_size_that_is_not_of_whole_cells_is_cut_and_said(client: TestClient) -> None:
    images, info = drawn(client, width=70, height=64)
    assert (images, info["width"]) == (drawn(client)[0], 64)
    assert info["clipskip_notes"] == ["width 70 is drawn as 64, as A1111 draws it: sides are multiples of 8"]


@pytest.mark.parametrize(
    ("name", "a1111"), [("euler_a", "Euler a"), ("dpmpp_2m", "DPM++ 2M"), ("uni_pc", "UniPC bh1"), ("heun", "Heun")]
)
def test_other_tools_names_of_samplers_are_understood(client: TestClient, name: str, a1111: str) -> None:
    images, info = drawn(client, sampler_name=name)
    assert (images, info["sampler_name"]) == (drawn(client, sampler_name=a1111)[0], a1111)


def test_styles_are_put_into_the_prompts_as_a1111_puts_them(client: TestClient) -> None:
    images, info = drawn(client, styles=["Photo", "Ink"], negative_prompt="bad")
    assert info["all_prompts"] == ["photo of a red frog, sharp, ink drawing"]
    assert info["all_negative_prompts"] == ["bad, blurry"]
    assert images == drawn(client, prompt=info["prompt"], negative_prompt="bad, blurry")[0]
    assert [style["name"] for style in client.get("/sdapi/v1/prompt-styles").json()] == ["Photo", "Ink"]
    assert "'Nowhere' not in the styles.csv" in reasons(post(client, styles=["Photo", "Nowhere"]))["styles"]


def test_a_sampler_with_its_own_timesteps_leaves_the_schedule_out_and_says_so(client: TestClient) -> None:
    images, info = drawn(client, sampler_name="DDIM", scheduler="normal")
    assert info["clipskip_ignored"] == ["scheduler"]
    assert images == drawn(client, sampler_name="DDIM")[0]


INFOTEXT = (
    "a blue owl\nNegative prompt: bad\nSteps: 2, Sampler: Euler, Schedule type: Karras, CFG scale: 4, Seed: 9, Size: 64x64, "
    "Clip skip: 3, Odd thing: 4"
)


def test_an_infotext_gives_what_the_body_does_not(client: TestClient) -> None:
    answer = client.post("/sdapi/v1/txt2img", json={"infotext": INFOTEXT, "seed": 5, "override_settings": TINY})
    info = json.loads(answer.json()["info"])
    told = {name: info[name] for name in ("prompt", "negative_prompt", "seed", "cfg_scale", "clip_skip", "steps")}
    assert told == {
        "prompt": "a blue owl", "negative_prompt": "bad", "seed": 5, "cfg_scale": 4, "clip_skip": 3, "steps": 2,
    }  # fmt: skip
    assert "Schedule type: Karras" in info["infotexts"][0]
    assert info["clipskip_ignored"] == ["infotext: Odd thing"]
    body = {"infotext": INFOTEXT, "override_settings": {CLIP_SKIP: 2}}
    assert json.loads(client.post("/sdapi/v1/txt2img", json=body).json()["info"])["clip_skip"] == 2


def wrapped(text: str) -> str:
    return "\n".join(text[i : i + 76] for i in range(0, len(text), 76))


@pytest.mark.parametrize(
    "spelled",
    [
        wrapped,
        lambda text: f"data:image/png;base64,{wrapped(text)}\r\n",
        lambda text: base64.encodebytes(base64.b64decode(text)).decode(),
        lambda text: wrapped(text).replace("\n", "\r\n"),
        lambda text: f"\n  {wrapped(text)}".replace("\n", "\n  \t"),
    ],
)
def test_base64_may_be_broken_into_lines(client: TestClient, spelled: Any) -> None:
    assert drawn(client, "img2img", init_images=[spelled(FROG)])[0] == drawn(client, "img2img", init_images=[FROG])[0]
    assert client.post("/sdapi/v1/png-info", json={"image": spelled(FROG)}).status_code == 200


def test_a_picture_may_have_an_alpha_channel(client: TestClient) -> None:
    assert drawn(client, "img2img", init_images=[base64.b64encode(png("RGBA")).decode()])[0]


@pytest.mark.parametrize(("format", "kind"), [("jpg", "JPEG"), ("jpeg", "JPEG"), ("webp", "WEBP"), ("png", "PNG")])
def test_pictures_come_and_are_kept_in_the_format_of_the_options(
    client: TestClient, studio: Studio, format: str, kind: str
) -> None:
    override = {"samples_format": format, "webp_lossless": True, CLIP_SKIP: 2}
    images, info = drawn(client, override_settings=override, save_images=True, prompt=f"a red frog, {format} \u2603")
    content = base64.b64decode(images[0])
    assert Image.open(io.BytesIO(content)).format == kind
    assert picture_infotext(content, "it") == info["infotexts"][0]
    assert content in [path.read_bytes() for path in studio.history.out.iterdir() if path.is_file()]
    read = client.post("/sdapi/v1/png-info", json={"image": images[0]}).json()
    assert (read["info"], read["parameters"]["Clip skip"]) == (info["infotexts"][0], "2")


def test_all_of_a1111s_options_are_told_and_kept(client: TestClient) -> None:
    options = client.get("/sdapi/v1/options").json()
    assert set(options) == set(DEFAULTS)
    assert options | {"sd_model_checkpoint": "", "sd_checkpoint_hash": ""} == DEFAULTS
    assert client.post("/sdapi/v1/options", json=options).status_code == 200
    changes = {"samples_save": False, "n_rows": 3, "quicksettings_list": ["sd_vae", CLIP_SKIP], "font": "Arial"}
    assert client.post("/sdapi/v1/options", json=changes).json() is None
    assert changes.items() <= client.get("/sdapi/v1/options").json().items()


def test_the_model_of_the_options_goes_by_its_title_in_the_list(folder: Path, tmp_path: Path) -> None:
    for place in ("one", "two"):
        (tmp_path / "models" / place).mkdir(parents=True)
        (tmp_path / "models" / place / "tiny.safetensors").write_bytes((folder / "tiny.safetensors").read_bytes())
    studio = Studio(tmp_path / "out", Library((tmp_path / "models",)))
    client = TestClient(build_app(studio), base_url="http://127.0.0.1:7861")
    client.post("/sdapi/v1/options", json={"sd_model_checkpoint": "two/tiny.safetensors"})
    title = client.get("/sdapi/v1/options").json()["sd_model_checkpoint"]
    assert title in [model["title"] for model in client.get("/sdapi/v1/sd-models").json()]
    assert title.startswith("two/tiny.safetensors [")
    assert client.post("/sdapi/v1/options", json={"sd_model_checkpoint": title}).status_code == 200
    studio.close()


def test_a_set_of_options_loses_nothing_to_those_that_are_refused(client: TestClient) -> None:
    changes = {
        "tiling": True,
        CLIP_SKIP: 2,
        "sd_vae": "some.pt",
        "samples_save": "maybe",
        "control_net_x": 1,
        "n_rows": 2,
    }
    answer = client.post("/sdapi/v1/options", json=changes)
    assert {"tiling", "sd_vae", "samples_save"} <= set(reasons(answer))
    assert "the other 2 are set" in answer.json()["detail"]
    assert {CLIP_SKIP: 2, "n_rows": 2, "tiling": False}.items() <= client.get("/sdapi/v1/options").json().items()
    assert drawn(client)[1]["clip_skip"] == 2


def test_options_that_a1111_has_not_are_left_out_and_said(client: TestClient) -> None:
    answer = client.post("/sdapi/v1/options", json={"control_net_models_path": "/x", CLIP_SKIP: 2})
    assert (answer.status_code, answer.json()) == (200, {"clipskip_ignored": ["control_net_models_path"]})
    assert drawn(client, override_settings={"forge_preset": "sd"})[1]["clipskip_ignored"] == ["forge_preset"]


@pytest.mark.parametrize("skip", [0, 13, -1, 0.5, 12.5, "2", True, None])
def test_a_clip_skip_that_the_model_has_not_is_refused_with_its_range(client: TestClient, skip: Any) -> None:
    for answer in (
        client.post("/sdapi/v1/options", json={CLIP_SKIP: skip}),
        post(client, override_settings={CLIP_SKIP: skip}),
        *([] if skip is None else [post(client, clip_skip=skip)]),
    ):
        assert any("number from 1" in why for why in reasons(answer).values())
    assert client.get("/sdapi/v1/options").json()[CLIP_SKIP] == 1


def test_eta_and_churn_reach_the_samplers_that_take_them(client: TestClient) -> None:
    usual, info = drawn(client, sampler_name="Euler a")
    assert drawn(client, sampler_name="Euler a", eta=1.0)[0] == usual
    images, info = drawn(client, sampler_name="Euler a", eta="0.5")
    assert images != usual
    assert ", Eta: 0.5" in info["infotexts"][0]
    churned, info = drawn(client, sampler_name="Euler", s_churn=1.5, s_tmax=0, s_noise=1.01)
    assert churned != drawn(client, sampler_name="Euler")[0]
    assert ", Sigma churn: 1.5" in info["infotexts"][0]


def test_an_eta_of_the_options_is_that_of_its_kind_of_sampler(client: TestClient) -> None:
    override = {"override_settings": {"eta_ancestral": 0.5, "eta_ddim": 0.25}}
    for sampler, eta, said in (("Euler a", 0.5, "Eta: 0.5"), ("DDIM", 0.25, "Eta DDIM: 0.25")):
        images, info = drawn(client, sampler_name=sampler, **override)
        assert f", {said}," in info["infotexts"][0]
        assert images == drawn(client, sampler_name=sampler, eta=eta)[0]
        assert images != drawn(client, sampler_name=sampler)[0]
    assert drawn(client, sampler_name="Euler a", eta=1.0, **override)[0] == drawn(client, sampler_name="Euler a")[0]
    client.post("/sdapi/v1/options", json={"s_churn": 1.5})
    assert ", Sigma churn: 1.5" in drawn(client, sampler_name="Euler")[1]["infotexts"][0]


def test_what_is_likely_not_meant_is_said(client: TestClient) -> None:
    _, info = drawn(client, sampler_name="Euler", eta=0.5)
    assert any("eta 0.5 changes nothing: Euler has none" in line for line in info["clipskip_warnings"])


HIRES = {"enable_hr": True, "hr_scale": "2", "hr_upscaler": "Latent", "denoising_strength": 0.5}


def size(image: str) -> tuple[int, int]:
    return Image.open(io.BytesIO(base64.b64decode(image))).size


def test_a_hires_pass_enlarges_and_is_noted(client: TestClient) -> None:
    plain, _ = drawn(client)
    images, info = drawn(client, **HIRES, hr_second_pass_steps=3, hr_prompt="a blue owl", hr_negative_prompt="bad")
    assert size(images[0]) == tuple(2 * side for side in size(plain[0]))
    noted = parse_infotext(info["infotexts"][0]).fields
    assert {
        "Hires upscale": "2",
        "Hires steps": "3",
        "Hires upscaler": "Latent",
        "Denoising strength": "0.5",
    }.items() <= noted.items()
    assert (noted["Hires prompt"], noted["Hires negative prompt"]) == ("a blue owl", "bad")
    assert info["denoising_strength"] == 0.5


@pytest.mark.parametrize("upscaler", ["None", "Lanczos", "Nearest", "Latent (nearest-exact)"])
def test_every_upscaler_that_is_listed_serves_a_hires_pass(client: TestClient, upscaler: str) -> None:
    lists = [client.get(f"/sdapi/v1/{name}").json() for name in ("upscalers", "latent-upscale-modes")]
    assert upscaler in [one["name"] for found in lists for one in found]
    assert len(drawn(client, **HIRES | {"hr_upscaler": upscaler})[0]) == 1


def test_what_a_hires_pass_leaves_to_the_first_is_the_firsts(client: TestClient) -> None:
    same = {
        "hr_sampler_name": "Use same sampler",
        "hr_scheduler": "Use same scheduler",
        "hr_checkpoint_name": "Use same checkpoint",
    }
    assert drawn(client, **HIRES, **same)[0] == drawn(client, **HIRES)[0]
    other, _ = drawn(client, **HIRES, hr_sampler_name="Euler a")
    assert other != drawn(client, **HIRES)[0]


@pytest.mark.parametrize(
    ("older", "newer"),
    [({"hr_sampler_name": "LMS Karras"}, {"hr_sampler_name": "LMS", "hr_scheduler": "Karras"}),
     ({"sampler_name": "Euler Exponential", "hr_sampler_name": "DPM++ 2M Karras"},
      {"scheduler": "Exponential", "hr_sampler_name": "DPM++ 2M", "hr_scheduler": "Karras"}),
     ({"scheduler": "Uniform", "hr_sampler_name": "DPM++ 2M Karras"},
      {"scheduler": "Uniform", "hr_sampler_name": "DPM++ 2M", "hr_scheduler": "Karras"}),
     ({"sampler_name": "Euler Karras", "hr_scheduler": "Exponential"},
      {"scheduler": "Karras", "hr_scheduler": "Exponential"})],
)  # fmt: skip
def test_a_schedule_type_in_a_samplers_name_is_that_of_its_own_pass(
    client: TestClient, older: dict[str, Any], newer: dict[str, Any]
) -> None:
    images, info = drawn(client, **HIRES, **older)
    assert (images, info["infotexts"]) == (
        drawn(client, **HIRES, **newer)[0],
        drawn(client, **HIRES, **newer)[1]["infotexts"],
    )
    assert "Hires schedule type: " in info["infotexts"][0]


@pytest.mark.parametrize(
    ("name", "value"),
    [("hr_upscaler", "ESRGAN_4x"), ("hr_scale", 99), ("hr_second_pass_steps", 999), ("hr_sampler_name", "Eulr"),
     ("hr_scheduler", "Carras"), ("hr_checkpoint_name", "sdxl"), ("denoising_strength", 1.5), ("hr_resize_x", -8)],
)  # fmt: skip
def test_what_a_hires_pass_cannot_do_is_refused_by_name(client: TestClient, name: str, value: Any) -> None:
    assert list(reasons(post(client, **HIRES | {name: value}))) == [name]
    assert post(client, **HIRES | {name: value, "enable_hr": False}).status_code == 200


def test_an_infotext_brings_its_hires_pass(client: TestClient) -> None:
    body = {
        "infotext": f"{INFOTEXT}, Hires upscale: 2, Hires upscaler: Latent, Denoising strength: 0.5",
        "override_settings": TINY,
    }
    answer = client.post("/sdapi/v1/txt2img", json=body)
    assert size(answer.json()["images"][0]) == (32, 32)
    answer = client.post("/sdapi/v1/txt2img", json=body | {"enable_hr": False})
    assert size(answer.json()["images"][0]) == (16, 16)


def test_a_refiner_finishes_the_picture_and_is_noted(client: TestClient) -> None:
    long = {"steps": 4, "refiner_checkpoint": "tiny", "refiner_switch_at": 0.5}
    noted = parse_infotext(drawn(client, **long)[1]["infotexts"][0]).fields
    assert (noted["Refiner"].partition(" ")[0], noted["Refiner switch at"]) == ("tiny", "0.5")
    for idle in (
        {"refiner_switch_at": 1},
        {"refiner_checkpoint": "None"},
        {"refiner_checkpoint": "", "refiner_switch_at": 0},
    ):
        assert "Refiner" not in drawn(client, **long | idle)[1]["infotexts"][0]
    assert list(reasons(post(client, refiner_checkpoint="sdxl"))) == ["refiner_checkpoint"]
    assert list(reasons(post(client, **long | {"refiner_switch_at": -1}))) == ["refiner_switch_at"]


@pytest.mark.parametrize("script", [{"args": [True, "tiny", 0.5]}, [True, "tiny", 0.5]])
def test_the_refiner_script_of_a1111s_page_is_obeyed_and_said(client: TestClient, script: Any) -> None:
    fields = {"steps": 4, "refiner_checkpoint": "tiny", "refiner_switch_at": 0.5}
    images, info = drawn(client, steps=4, alwayson_scripts={"Refiner": script})
    assert images == drawn(client, **fields)[0]
    assert any("script Refiner is obeyed" in note for note in info["clipskip_notes"])
    own = drawn(client, **fields | {"refiner_checkpoint": ""}, alwayson_scripts={"Refiner": script})
    assert own[0] == drawn(client, steps=4)[0], "the body's own field wins"
    for idle in ([False, "tiny", 0.5], [True, "None", 0.5], [True, "", 0.8], [True, None, 0.8], [True, "tiny", 1], []):
        assert drawn(client, steps=4, alwayson_scripts={"Refiner": {"args": idle}})[0] == own[0]
    refused = post(client, alwayson_scripts={"Refiner": {"args": [True, "sdxl", 0.5]}})
    assert list(reasons(refused)) == ["refiner_checkpoint"]


def test_the_pages_scripts_that_its_api_leaves_out_are_said_where_they_say_something_else(client: TestClient) -> None:
    scripts = {"Sampler": {"args": [30, "Euler a", "Karras"]}, "Seed": {"args": [7, True, 3, 0.5, 0, 0]}}
    images, info = drawn(client, alwayson_scripts=scripts)
    assert images == drawn(client)[0]
    assert info["clipskip_ignored"] == ["alwayson_scripts: Sampler", "alwayson_scripts: Seed"]
    same = {"Seed": {"args": [BODY["seed"], False, -1, 0, 0, 0]}}
    assert drawn(client, alwayson_scripts=same, subseed=-1, subseed_strength=0)[1]["clipskip_ignored"] == []


ODD: list[Any] = [
    {},
    [],
    "",
    "x",
    "\x1d",
    1e308,
    -1,
    10**30,
    True,
    [[]],
    {"a": {"b": []}},
    [None],
    "1e999",
    ["None", 3],
]


@pytest.mark.parametrize("path", ["txt2img", "img2img"])
def test_no_value_of_any_field_is_a_fault_of_the_servers(client: TestClient, path: str) -> None:
    """With steps of 0 each body is refused whatever else it says, so that nothing is drawn. Each field gets a fifth of the
    odd values, the next one another fifth."""
    fields = {*PictureBody.model_fields, *ImageBody.model_fields, *NEUTRAL, *SILENT} - {"steps"}
    for place, name in enumerate(sorted(fields)):
        for value in ODD[place % 5 :: 5]:
            body = {"steps": 0, "enable_hr": True, "mask": FROG, "init_images": [FROG], name: value}
            answer = client.post(f"/sdapi/v1/{path}", json=body)
            assert answer.status_code == 422, (name, value, answer.text)


def test_no_value_of_any_option_is_a_fault_of_the_servers(client: TestClient) -> None:
    for value in ODD:
        sent = dict.fromkeys(set(DEFAULTS) | {"clip_skip"}, value)
        answer = client.post("/sdapi/v1/txt2img", json={"steps": 0, "override_settings": sent})
        assert answer.status_code == 422, (value, answer.text)


def test_a_vae_file_of_the_options_decodes_the_picture(client: TestClient) -> None:
    own = drawn(client)[0]
    (name,) = [one["model_name"] for one in client.get("/sdapi/v1/sd-vae").json()]
    assert name == f"{VAE}.safetensors"
    images, info = drawn(client, override_settings={"sd_vae": name})
    assert (images != own, info["sd_vae_name"]) == (True, name)
    assert parse_infotext(info["infotexts"][0]).fields["VAE"].startswith(VAE)
    for name in ("Automatic", "None", ""):
        assert drawn(client, override_settings={"sd_vae": name})[0] == own
    assert client.post("/sdapi/v1/options", json={"sd_vae": VAE}).status_code == 200
    assert drawn(client)[0] == images
    assert client.post("/sdapi/v1/options", json={"sd_vae": "Automatic"}).status_code == 200
    assert list(reasons(post(client, override_settings={"sd_vae": "missing.pt"}))) == ["sd_vae"]
