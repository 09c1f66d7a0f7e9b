"""JSON of other tools: each setting that is understood is used, and every other key is told of."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clipskip.errors import SkipOutOfRange, SpecError
from clipskip.spec import ClipSkip, Family, LoraRef, Request, asked_skip
from clipskip.spec.passes import Hires
from clipskip.spec.settings import request_from_text

Json = dict[str, Any]
GOLDEN = Path(__file__).parents[1] / "golden" / "cases"


def read(record: Json, **changes: object) -> Request:
    return request_from_text(json.dumps(record | changes))


def unused(asked: Request) -> list[str]:
    return [name for name, _ in asked.unused]


CLIP_STOP = "CLIP_stop_at_last_layers"
CIVITAI_BARE: Json = {"prompt": "a", "cfgScale": 7, "sampler": "Euler a", "Size": "1024x1024"}
CIVITAI: Json = json.loads((GOLDEN / "05_settings_civitai_api_meta.json").read_text("utf-8"))["input"]
A1111_BODY: Json = json.loads((GOLDEN / "07_settings_a1111_api_payload.json").read_text("utf-8"))["input"]


def test_civitais_meta_is_read_whole() -> None:
    asked = read(CIVITAI)
    assert (asked.clip_skip, asked.width, asked.height, asked.model_hash) == (ClipSkip(2), 512, 768, "0123456789")
    assert (asked.sampler, asked.scheduler, asked.rng) == ("DPM++ 2M", "Karras", "GPU")
    assert asked.loras == (LoraRef(name="ogre", text_encoder=0.8, unet=0.8),)
    assert asked.hires == Hires(scale=2, strength=0.4) and asked.unused == ()


def test_a_lora_that_civitai_lists_and_the_prompt_names_is_applied_once() -> None:
    asked = read(CIVITAI, prompt="a fox <lora:ogre:0.8>")
    assert asked.loras == () and asked.prompt == "a fox <lora:ogre:0.8>"


def test_civitais_list_of_pictures_holds_the_meta() -> None:
    asked = read({"id": 1, "url": "https://example.org/a.png", "meta": CIVITAI})
    assert (asked.seed, asked.clip_skip, unused(asked)[:2]) == (5, ClipSkip(2), ["id", "url"])


def test_civitais_meta_of_a_comfyui_picture_is_its_graph() -> None:
    graph = json.loads((GOLDEN / "comfy_hash_comment.json").read_text("utf-8"))
    asked = read({"prompt": "x", "comfy": json.dumps({"prompt": graph, "workflow": {"nodes": []}})})
    assert (asked.seed, asked.clip_skip, asked.height) == (7, ClipSkip(2), 768) and "prompt" in unused(asked)


def test_an_a1111_api_body_is_read_with_its_overrides() -> None:
    asked = read(A1111_BODY)
    assert (asked.clip_skip, asked.model, asked.height, asked.seed) == (ClipSkip(2), "foxmix", 768, 9)
    assert (asked.sampler, asked.scheduler, asked.cfg_scale) == ("DPM++ 2M", "Karras", 6)
    assert asked.hires == Hires(scale=2, strength=0.75) and asked.unused == ()


@pytest.mark.parametrize(
    ("record", "sdxl"),
    [
        (CIVITAI_BARE, 2), (CIVITAI_BARE | {"clipSkip": 1, "Version": "v1.10.1"}, 2), (CIVITAI_BARE | {"clipSkip": 3}, 3),
        ({"prompt": "a", "override_settings": {}}, 2), ({"prompt": "a", "override_settings": {CLIP_STOP: 3}}, 3),
        ({"prompt": "a", "sampler_index": "Euler", "clip_skip": 1, "version": "f2.0.1v1.10.1"}, 2),
        ({"prompt": "a", "use_stable_diffusion_model": "m", "clip_skip": False}, 2),
        ({"prompt": "a", "baseModel": {"modelFileName": "m"}, "samplerName": "Euler a"}, 2),
        ({"prompt": "a", "baseModel": {"modelFileName": "m"}, "samplerName": "Euler a", "clipSkip": 1}, 1),
    ],
)  # fmt: skip
def test_a_clip_skip_that_a_record_leaves_out_is_the_familys_own(record: Json, sdxl: int) -> None:
    asked = request_from_text(json.dumps(record))
    told = asked_skip(asked, Family.SDXL)
    assert told and told.skip == ClipSkip(sdxl)
    assert asked.clip_skip == (asked_skip(asked, Family.SD1) or told).skip


def test_a_second_pass_that_an_api_body_switches_off_is_told_of() -> None:
    asked = read(A1111_BODY, enable_hr=False)
    assert asked.hires is None and unused(asked) == ["hr_scale", "enable_hr"]
    asked = read(A1111_BODY, enable_hr=False, hr_checkpoint_name="other")
    assert asked.hires is None and unused(asked) == ["hr_scale", "enable_hr", "hr_checkpoint_name"]


@pytest.mark.parametrize("key", ["info", "parameters", "infotext", "Parameters", "UserComment"])
def test_json_that_holds_a_settings_text_is_read_as_that_text(key: str) -> None:
    text = "a fox\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 512x768, Clip skip: 2"
    asked = request_from_text(json.dumps([{"SourceFile": "a.png", key: text, "items": {}}]))
    assert asked == replace(request_from_text(text), unused=(("SourceFile", "a.png"),))


def test_an_a1111_title_is_a_name_and_a_hash() -> None:
    asked = read(A1111_BODY, override_settings={"sd_model_checkpoint": "sd15/foxmix.safetensors [0123456789]"})
    assert (asked.model, asked.model_hash) == ("foxmix", "0123456789")


def test_two_clip_skips_of_a_body_that_disagree_are_an_error() -> None:
    with pytest.raises(SpecError, match="disagree"):
        read(A1111_BODY, clip_skip=1)


def test_overrides_win_over_what_stands_beside_them_which_is_told_of() -> None:
    asked = read(A1111_BODY, steps=9, override_settings={"steps": 21})
    assert asked.steps == 21 and ("steps (outside override_settings)", "9") in asked.unused


FOOOCUS: Json = {
    "prompt": "a fox", "negative_prompt": "blurry", "base_model": "juggernaut", "base_model_hash": "aeb7e9e689", "steps": 30,
    "guidance_scale": 4, "seed": "123", "resolution": "(896, 1152)", "sampler": "dpmpp_2m_sde_gpu", "scheduler": "karras",
    "loras": [["offset", 0.1, "4852686128"]], "clip_skip": 2, "metadata_scheme": "fooocus", "styles": "['Fooocus V2']",
    "performance": "Speed", "refiner_model": "None", "lora_combined_1": "offset : 0.1",
}  # fmt: skip
OLD_FOOOCUS: Json = {
    "Prompt": "a fox", "Negative Prompt": "blurry", "Styles": "['Fooocus V2']", "Performance": "Speed",
    "Resolution": "(896, 1152)", "Sharpness": 2.0, "Guidance Scale": 4.0, "ADM Guidance": "(1.5, 0.8, 0.3)",
    "Base Model": "juggernaut.safetensors", "Refiner Model": "None", "Refiner Switch": 0.5, "Sampler": "dpmpp_2m_sde_gpu",
    "Scheduler": "karras", "Seed": 123, "LoRA 1": "offset.safetensors : 0.1", "LoRA 2": "None : 1.0", "Version": "v2.1.865",
}  # fmt: skip
FIRST_FOOOCUS: Json = {**OLD_FOOOCUS, "LoRA [offset.safetensors] weight": 0.1}
del FIRST_FOOOCUS["LoRA 1"]


@pytest.mark.parametrize("record", [FOOOCUS, OLD_FOOOCUS, FIRST_FOOOCUS], ids=["new", "old", "first"])
def test_fooocus_logs_of_every_age_are_read(record: Json) -> None:
    asked = read(record)
    assert (asked.prompt, asked.negative_prompt, asked.model, asked.steps) == ("a fox", "blurry", "juggernaut", 30)
    assert (asked.width, asked.height, asked.seed, asked.cfg_scale) == (896, 1152, 123, 4)
    assert (asked.sampler, asked.scheduler) == ("DPM++ 2M SDE", "Karras")
    assert asked.loras == (LoraRef(name="offset", text_encoder=0.1, unet=0.1),)
    assert {name.lower() for name in unused(asked)} >= {"styles"}


def test_a_fooocus_preset_that_adds_a_lora_is_an_error() -> None:
    with pytest.raises(SpecError, match="Extreme Speed"):
        read(OLD_FOOOCUS, Performance="Extreme Speed")


SWARM: Json = {
    "sui_image_params": {
        "prompt": "a fox <lora:ogre:0.8> in <embed:easy>", "negativeprompt": "blurry", "model": "sd15/foxmix", "seed": 5,
        "steps": 20, "cfgscale": 7.0, "aspectratio": "2:3", "width": 512, "height": 768, "sampler": "dpmpp_2m",
        "scheduler": "karras", "clipstopatlayer": -2, "loras": ["ink"], "loraweights": ["0.3"], "swarm_version": "0.9.5",
    },
    "sui_extra_data": {"date": "2026-01-01"},
}  # fmt: skip


def test_swarmuis_record_is_read() -> None:
    asked = read(SWARM)
    assert (asked.prompt, asked.negative_prompt, asked.model) == ("a fox  in embedding:easy", "blurry", "foxmix")
    assert (asked.clip_skip, asked.sampler, asked.scheduler) == (ClipSkip(2), "DPM++ 2M", "Karras")
    assert [(lora.name, lora.unet) for lora in asked.loras] == [("ink", 0.3), ("ogre", 0.8)]
    assert set(unused(asked)) == {"aspectratio", "swarm_version", "sui_extra_data"}


@pytest.mark.parametrize(
    "change",
    [{"clipstopatlayer": 2}, {"clipstopatlayer": "x"}, {"loraweights": ["1", "2"]}, {"prompt": "<random:a|b>"}],
)
def test_what_swarmui_says_and_is_not_understood_is_an_error(change: Json) -> None:
    with pytest.raises(SpecError):
        read({"sui_image_params": SWARM["sui_image_params"] | change})


OLD_INVOKE: Json = {
    "model": "stable diffusion", "model_weights": "stable-diffusion-1.5", "model_hash": "cc6cb27103417325",
    "app_id": "invoke-ai/InvokeAI", "app_version": "v2.3.0",
    "image": {
        "prompt": [{"prompt": "a fox [blurry, dull] in snow", "weight": 1.0}], "steps": 50, "cfg_scale": 7.5, "threshold": 0,
        "width": 512, "height": 768, "seed": 5, "type": "txt2img", "sampler": "k_dpm_2_a", "variations": [],
    },
}  # fmt: skip
DREAM = '"a fox [blurry, dull] in snow" -s 50 -S 5 -W 512 -H 768 -C 7.5 -A k_dpm_2_a'


@pytest.mark.parametrize(
    "text",
    [json.dumps(OLD_INVOKE), DREAM, DREAM.replace(" 50", "50").replace(" 5 ", "5 ")],
    ids=["json", "dream", "joined"],
)
def test_invokeai_2_is_read_with_its_negative_words(text: str) -> None:
    asked = request_from_text(text)
    assert (asked.prompt, asked.negative_prompt) == ("a fox in snow", "blurry, dull")
    assert (asked.steps, asked.seed, asked.width, asked.height) == (50, 5, 512, 768)
    assert (asked.sampler, asked.cfg_scale, asked.clip_skip) == ("DPM2 a", 7.5, ClipSkip(1))


def test_invokeai_2_names_its_model_by_its_weights() -> None:
    asked = read(OLD_INVOKE)
    assert asked.model == "stable-diffusion-1.5" and asked.model_hash == OLD_INVOKE["model_hash"]
    assert "model kind" in unused(asked) and "threshold" in unused(asked)


def test_other_options_of_the_first_invokeai_are_told_of() -> None:
    asked = request_from_text(f"{DREAM} -G0.8 --hires_fix -I init.png")
    assert asked.unused == (("-G", "0.8"), ("--hires_fix", "on"), ("-I", "init.png")) and asked.seed == 5


def test_the_options_of_the_first_invokeai_for_faces_and_outcrops_are_told_of() -> None:
    asked = request_from_text(f"{DREAM} -G 0.8 -ft codeformer -cf 0.75 -c top 64 -U 4 0.75")
    assert (asked.prompt, asked.negative_prompt) == ("a fox in snow", "blurry, dull")
    options = {"-G": "0.8", "-ft": "codeformer", "-cf": "0.75", "-c": "top 64", "-U": "4 0.75"}
    assert dict(asked.unused) == options and asked.sampler == "DPM2 a"


def test_quoted_words_are_a_prompt() -> None:
    assert request_from_text('"a fox" in the snow').prompt == '"a fox" in the snow'


TENSORART: Json = {
    "prompt": "a fox", "negativePrompt": "blurry", "width": 512, "height": 768, "seed": "5", "steps": 20, "cfgScale": 7,
    "samplerName": "DPM++ 2M Karras", "clipSkip": 2, "imageCount": 1,
    "baseModel": {"label": "foxmix v1", "modelFileName": "foxmix", "hash": "0123456789", "modelId": "77"},
    "models": [{"label": "ogre", "type": "LORA", "modelFileName": "ogre", "weight": 0.8, "hash": "abcdef0123"}],
}  # fmt: skip


def test_tensorarts_record_is_read_in_spite_of_the_nul_at_its_end() -> None:
    asked = request_from_text(json.dumps(TENSORART) + "\0")
    assert (asked.model, asked.model_hash, asked.clip_skip) == ("foxmix", "0123456789", ClipSkip(2))
    assert (asked.sampler, asked.scheduler, asked.seed, asked.height) == ("DPM++ 2M", "Karras", 5, 768)
    assert asked.loras == (LoraRef(name="ogre", text_encoder=0.8, unet=0.8),)
    assert dict(asked.lora_hashes) == {"ogre": "abcdef0123"}
    assert set(unused(asked)) == {"imageCount", "baseModel label", "baseModel modelId", "models label"}


INVOKE: Json = {
    "generation_mode": "txt2img", "positive_prompt": "a fox", "negative_prompt": "blurry", "width": 512, "height": 768,
    "seed": 5, "rand_device": "cpu", "cfg_scale": 7.5, "steps": 30, "scheduler": "dpmpp_2m_k", "clip_skip": 1,
    "model": {"name": "dreamshaper-8", "base": "sd-1", "hash": "blake3:00", "key": "a-b"},
    "loras": [{"model": {"name": "ogre", "key": "c-d"}, "weight": 0.75}], "app_version": "5.0",
}  # fmt: skip
RECORDS = {
    "civitai": CIVITAI, "a1111": A1111_BODY, "fooocus": FOOOCUS, "old fooocus": OLD_FOOOCUS, "swarm": SWARM,
    "invoke 2": OLD_INVOKE, "tensorart": TENSORART, "invoke": INVOKE,
}  # fmt: skip


def test_what_invokeai_says_beside_the_settings_is_told_of() -> None:
    names = unused(read(INVOKE))
    assert set(names) == {"generation_mode", "app_version", "model hash", "model key", "loras model key"}


@pytest.mark.parametrize("name", RECORDS)
def test_a_setting_of_a_wrong_type_is_an_error_of_ours(name: str) -> None:
    for wrong in ({}, [], {"a": 1}, [[]], True, None, 1e400, "\x1d", "9" * 5000, -(10**30), [{"b": {}}]):
        for key in RECORDS[name]:
            try:
                read(RECORDS[name], **{key: wrong})
            except SpecError as error:
                assert "\n" not in str(error) and error.field


@pytest.mark.parametrize("wrong", [{"a": 1}, [1], True])
@pytest.mark.parametrize(
    "field", ["seed", "width", "steps", "cfgScale", "sampler", "Model hash", "resources", "hashes", "prompt", "Size"]
)
def test_a_setting_that_names_something_is_never_taken_for_its_default(field: str, wrong: object) -> None:
    with pytest.raises(SpecError) as caught:
        read(CIVITAI, **{field: wrong})
    assert caught.value.field


@pytest.mark.parametrize("skip", [{}, [], {"a": 1}, [2], True, "two", "2\x1d\x1d3", 0, -2, 1e400])
@pytest.mark.parametrize("record", [INVOKE, CIVITAI, TENSORART], ids=["invoke", "civitai", "tensorart"])
def test_a_clip_skip_that_is_none_is_one_line(record: Json, skip: object) -> None:
    if record is INVOKE and skip == 0:
        pytest.skip("InvokeAI's 0 is the last layer")
    names = [key for key in record if key.lower().replace("_", " ") in ("clip skip", "clipskip")]
    with pytest.raises(SpecError) as caught:
        read(record, **{names[0]: skip})
    assert caught.value.field == "clip_skip" and "\n" not in str(caught.value)


def test_a_key_that_stands_twice_is_an_error() -> None:
    with pytest.raises(SpecError, match="'seed' twice"):
        request_from_text('{"prompt": "a", "seed": 1, "seed": 2}')


def test_text_behind_a_record_is_told_of() -> None:
    assert request_from_text(json.dumps(CIVITAI) + "\nsaved").unused[-1] == ("text after the record", "saved")


def test_a_clip_skip_deeper_than_any_encoder_is_kept_for_the_model_to_refuse() -> None:
    asked = read(CIVITAI, **{"Clip skip": 99})
    assert asked.clip_skip is not None
    with pytest.raises(SkipOutOfRange):
        asked.clip_skip.check(12)


def test_fooocus_own_weighing_is_told_of_where_words_are_weighed() -> None:
    assert "the mean of weighed words" in unused(read(FOOOCUS, prompt="a (fox:1.2)"))
    assert "the mean of weighed words" not in unused(read(FOOOCUS, prompt=r"a fox \(red\)"))


def test_a_size_that_is_only_a_ratio_is_an_error() -> None:
    record = {key: value for key, value in SWARM["sui_image_params"].items() if key not in ("width", "height")}
    with pytest.raises(SpecError, match="aspect ratio 2:3"):
        read({"sui_image_params": record})


def test_two_vaes_of_a_record_are_an_error() -> None:
    with pytest.raises(SpecError, match="disagree"):
        read(TENSORART, vae="kl-f8", sdVae="other")
