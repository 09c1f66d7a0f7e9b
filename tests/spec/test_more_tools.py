"""Records of tools that came later, and A1111's lines in other tools' hands: every key is used or told of."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin
from spec.test_graphs import PLAIN

from clipskip.errors import SpecError
from clipskip.image import infotexts_of
from clipskip.sample import find_sampler, stable_diffusion
from clipskip.spec import ClipSkip, LoraRef, Request, request_from_texts
from clipskip.spec.numbering import Dialect
from clipskip.spec.settings import request_from_text

Json = dict[str, Any]


def read(record: Json, **changes: object) -> Request:
    return request_from_text(json.dumps(record | changes))


def unused(asked: Request) -> dict[str, str]:
    return dict(asked.unused)


def lora(name: str, weight: float) -> LoraRef:
    return LoraRef(name=name, text_encoder=weight, unet=weight)


DRAW_THINGS: Json = {
    "c": "a fox", "uc": "blurry", "steps": 30, "sampler": "DPM++ 2M Karras", "scale": 7.5, "seed": 42, "size": "512x768",
    "model": "sd_v1.5_f16.ckpt", "strength": 1, "seed_mode": "Scale Alike", "clip_skip": 2,
    "lora": [{"model": "ogre_lora_f16.ckpt", "weight": 0.6}], "mask_blur": 2.5, "v2": {"hiresFix": False, "clipSkip": 2},
}  # fmt: skip
DRAW_THINGS_LINE = (
    "a fox\n-blurry\nSteps: 30, Sampler: Euler Ancestral, Guidance Scale: 7.5, Seed: 42, Size: 512x768, Model: sd_v1.5_f16.ckpt, "
    "Strength: 1.0, Seed Mode: Torch CPU Compatible, CLIP Skip: 2, Refiner: sd_xl_refiner.ckpt, Refiner Start: 70%, "
    "LoRA 1 Model: ogre.ckpt, LoRA 1 Weight: 0.6, LoRA 2 Model: ink.ckpt, LoRA 2 Weight: 1.0"
)


def test_draw_things_record_is_read_whole() -> None:
    asked = read(DRAW_THINGS)
    assert (asked.prompt, asked.negative_prompt, asked.model) == ("a fox", "blurry", "sd_v1.5_f16")
    assert (asked.width, asked.height, asked.seed, asked.cfg_scale, asked.steps) == (512, 768, 42, 7.5, 30)
    assert (asked.sampler, asked.scheduler, asked.loras) == ("DPM++ 2M", "Karras", (lora("ogre_lora_f16", 0.6),))
    assert (asked.clip_skip, asked.counted_by) == (ClipSkip(2), Dialect.DRAWTHINGS)
    assert unused(asked).keys() == {"strength", "seed_mode", "mask_blur", "v2"}


def test_its_clip_skip_that_is_left_out_is_1() -> None:
    asked = read({key: value for key, value in DRAW_THINGS.items() if key not in ("clip_skip", "v2")})
    assert (asked.clip_skip, asked.counted_by) == (ClipSkip(1), Dialect.DRAWTHINGS)


def test_its_line_of_settings_is_read_as_its_json_is() -> None:
    asked = request_from_text(DRAW_THINGS_LINE)
    assert (asked.prompt, asked.negative_prompt, asked.sampler, asked.rng) == ("a fox", "blurry", "Euler a", "CPU")
    assert (asked.clip_skip, asked.counted_by, asked.cfg_scale) == (ClipSkip(2), Dialect.DRAWTHINGS, 7.5)
    assert (asked.refiner, asked.refiner_switch_at) == ("sd_xl_refiner", 0.7)
    assert asked.loras == (lora("ogre", 0.6), lora("ink", 1.0)) and unused(asked).keys() == {"Strength"}


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        ("Euler Ancestral", ("Euler a", "Automatic")), ("Euler A Trailing", ("Euler a", "SGM Uniform")),
        ("DPM++ 2M AYS", ("DPM++ 2M", "Align Your Steps")), ("DPM++ SDE Karras", ("DPM++ SDE", "Karras")),
        ("Euler A Substep", ("Euler A Substep", "Automatic")),
    ],
)  # fmt: skip
def test_its_samplers_are_known_by_their_words(sampler: str, expected: tuple[str, str]) -> None:
    asked = read(DRAW_THINGS, sampler=sampler)
    assert (asked.sampler, asked.scheduler) == expected


@pytest.mark.parametrize(
    "change",
    [
        {"lora": [{"model": "a", "weight": 1, "mode": "refiner"}]},
        {"lora": "x"},
        {"clip_skip": 0},
        {"size": "x"},
        {"c": 5},
    ],
)
def test_what_it_says_and_is_not_understood_is_an_error(change: Json) -> None:
    with pytest.raises(SpecError):
        read(DRAW_THINGS | change)


RUINED: Json = {
    "Prompt": "a fox", "Negative": "blurry", "steps": 30, "cfg": 8, "width": 512, "height": 768, "seed": 42,
    "sampler_name": "dpmpp_2m_sde_gpu", "scheduler": "karras", "base_model_name": "foxmix.safetensors",
    "base_model_hash": "be9edd61", "loras": [["48526861af", "0.1 - offset.safetensors"]], "start_step": 0, "denoise": None,
    "clip_skip": 2, "software": "RuinedFooocus",
}  # fmt: skip


def test_ruinedfooocus_record_is_read_whole() -> None:
    asked = read(RUINED)
    assert (asked.prompt, asked.negative_prompt, asked.model, asked.model_hash) == (
        "a fox",
        "blurry",
        "foxmix",
        "be9edd61",
    )
    assert (asked.sampler, asked.scheduler, asked.clip_skip) == ("DPM++ 2M SDE", "Karras", ClipSkip(2))
    assert asked.loras == (lora("offset", 0.1),) and asked.lora_hashes == (("offset", "48526861af"),)
    assert asked.emphasis == "ComfyUI" and unused(asked).keys() == {"start_step", "software"}


@pytest.mark.parametrize(
    "loras",
    ["Loras:<offset.safetensors:0.1>,<None:0.5>", [{"name": "offset.safetensors", "weight": 0.1}], [["offset", 0.1]]],
)
def test_its_loras_of_every_age_are_read(loras: object) -> None:
    assert read(RUINED, loras=loras).loras == (lora("offset", 0.1),)


def test_its_clip_skip_of_1_is_the_models_own() -> None:
    assert read(RUINED, clip_skip=1).clip_skip is None


def test_a_refiner_of_the_fooocus_family_is_read_and_not_dropped() -> None:
    asked = read(RUINED, refiner_model_name="ref.safetensors", switch=24)
    assert (asked.refiner, asked.refiner_switch_at) == ("ref", 0.8) and "when the refiner takes over" in unused(asked)
    newer = {
        "prompt": "a",
        "base_model": "x",
        "guidance_scale": 4,
        "refiner_model": "ref",
        "refiner_switch": 0.5,
        "steps": 30,
    }
    assert (read(newer).refiner, read(newer).refiner_switch_at) == ("ref", 0.5)
    assert read(newer, refiner_model="None").refiner is None


def test_fooocus_mres_slots_and_clip_skips_are_read() -> None:
    mre = {
        "prompt": "a fox", "negative_prompt": "", "seed": 1, "width": 512, "height": 512, "steps": 30, "cfg": 7.0,
        "base_model": "foxmix.safetensors", "base_clip_skip": -2, "refiner_clip_skip": -2, "refiner_model": "None",
        "sampler": "dpmpp_2m", "scheduler": "karras", "l1": "ogre.safetensors", "w1": 0.5, "l2": "None", "w2": 0.5,
    }  # fmt: skip
    asked = read(mre)
    assert (asked.clip_skip, asked.loras, asked.model) == (ClipSkip(2), (lora("ogre", 0.5),), "foxmix")
    assert unused(asked).keys() == {"refiner_clip_skip"}


SWARM: Json = {
    "prompt": "a fox", "model": "foxmix", "seed": 1, "steps": 20, "cfgscale": 7, "width": 512, "height": 512,
    "swarm_version": "0.6", "comfyuisampler": "dpmpp_2m", "comfyuischeduler": "karras",
}  # fmt: skip


def test_old_swarmuis_sampler_is_read() -> None:
    asked = read({"sui_image_params": SWARM})
    assert (asked.sampler, asked.scheduler) == ("DPM++ 2M", "Karras")


def test_swarmuis_refiner_is_read_where_it_swaps_steps_and_else_an_error() -> None:
    refined = SWARM | {"refinermodel": "ref", "refinercontrolpercentage": 0.2, "refinermethod": "StepSwap"}
    asked = read({"sui_image_params": refined})
    assert (asked.refiner, asked.refiner_switch_at) == ("ref", 0.8)
    assert {"when the refiner takes over", "the refiner's noise"} <= {name for name, _ in asked.unused}
    noisy = read({"sui_image_params": refined | {"refinermethod": "StepSwapNoisy"}})
    assert noisy.refiner == "ref" and "the refiner's noise" not in {name for name, _ in noisy.unused}
    for method in ("PostApply", "Other", ""):
        with pytest.raises(SpecError, match="draws over its picture with the model ref"):
            read({"sui_image_params": refined | {"refinermethod": method}})
    for base in ("(Use Base)", SWARM["model"]):
        own = read(
            {"sui_image_params": refined | {"refinermodel": base, "refinermethod": "PostApply", "refinerupscale": 2}}
        )
        assert own.refiner is None
        assert {"refinermethod", "refinercontrolpercentage", "refinerupscale"} <= {name for name, _ in own.unused}


@pytest.mark.parametrize(("steps", "control", "end"), [(20, 0.2, 16), (30, 0.35, 20), (25, 0.5, 12)])
def test_it_takes_over_at_the_step_that_swarmui_says(steps: int, control: float, end: int) -> None:
    record = {
        "sui_image_params": SWARM
        | {"comfyuischeduler": "normal", "steps": steps, "refinermodel": "ref", "refinermethod": "StepSwapNoisy"}
        | {"refinercontrolpercentage": control}
    }
    asked, table = read(record), stable_diffusion()
    levels = find_sampler("Euler")[0].sigmas(steps, schedule="Normal")
    assert [table.gone(level) >= asked.refiner_switch_at for level in levels[:-1]].index(True) == end


def test_invokeais_refiner_is_read() -> None:
    record = {
        "positive_prompt": "a", "seed": 1, "width": 512, "height": 512, "steps": 20, "scheduler": "euler",
        "model": {"model_name": "base", "base_model": "sdxl"}, "refiner_start": 0.7, "refiner_steps": 20,
        "refiner_model": {"model_name": "ref", "base_model": "sdxl-refiner"},
    }  # fmt: skip
    asked = read(record)
    assert (asked.refiner, asked.refiner_switch_at, unused(asked)) == ("ref", 0.7, {"refiner_steps": "20"})


def test_mochi_diffusions_caption_is_read() -> None:
    asked = request_from_text(
        "Include in Image: a fox; in snow; Exclude from Image: blurry; Model: sd-v1-5; Steps: 8; Guidance Scale: 11.0; "
        "Seed: 42; Size: 512x512; Scheduler: DPM-Solver++; ML Compute Unit: CPU & GPU; Generator: Mochi Diffusion 6.0"
    )
    assert (asked.prompt, asked.negative_prompt, asked.model) == ("a fox; in snow", "blurry", "sd-v1-5")
    assert (asked.steps, asked.cfg_scale, asked.seed, asked.width, asked.sampler) == (8, 11.0, 42, 512, "DPM++ 2M")
    assert unused(asked).keys() == {"ML Compute Unit", "Generator"}


LINE = (
    "a fox\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 512x768, Model: foxmix, "
)


@pytest.mark.parametrize(
    ("fields", "vae"),
    [
        ("Module 1: kl-f8, Version: neo", "kl-f8"), ("VAE: kl-f8, Module 1: kl-f8", "kl-f8"), ("Module 1: Built-in", None),
        ("Module 1: kl-f8, Hires Module 1: Use same choices", "kl-f8"),
    ],
)  # fmt: skip
def test_forges_module_is_the_vae(fields: str, vae: str | None) -> None:
    asked = request_from_text(LINE + fields)
    assert asked.vae == vae and not any("Module" in name for name in unused(asked))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("Module 1: kl-f8, Module 2: clip_l", "'clip_l' is a text encoder"), ("Module 1: a, Module 2: b", "may each be the VAE"),
        ("VAE: kl-f8, Module 1: other", "disagree"), ("Hires Module 1: other", "VAE of the second pass"),
        ("Hires checkpoint: other [0123456789]", "another model"),
    ],
)  # fmt: skip
def test_modules_and_models_that_cannot_be_repeated_are_errors(fields: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        request_from_text(LINE + fields)


def test_forges_modules_in_an_api_body_are_read() -> None:
    body = {
        "prompt": "a",
        "cfg_scale": 7,
        "override_settings": {"forge_additional_modules": ["/m/VAE/kl-f8.safetensors"]},
    }
    assert read(body).vae == "kl-f8"


@pytest.mark.parametrize(
    ("fields", "dialect"),
    [
        ("Version: classic", Dialect.FORGE_CLASSIC), ("Version: neo-2.28", Dialect.FORGE_NEO),
        ("Version: f1.0.0v2-v1.10.1RC-latest-2498", Dialect.REFORGE), ("Version: f2.0.1v1.10.1-previous-669", Dialect.FORGE),
        ("App: SD.Next, Version: f6a8aea", Dialect.SDNEXT), ("Version: v1.10.1", Dialect.A1111),
    ],
)  # fmt: skip
def test_the_tool_that_wrote_a_text_counts_its_clip_skip(fields: str, dialect: Dialect) -> None:
    assert request_from_text(f"{LINE}Clip skip: 2, {fields}").counted_by is dialect


def test_sdnexts_sigmas_are_the_schedule() -> None:
    assert request_from_text(f"{LINE}App: SD.Next, Sampler sigma: karras").scheduler == "Karras"


@pytest.mark.parametrize("fields", ["Version: ComfyUI", "Clip skip: 2"])
def test_a_settings_text_of_comfyuis_nodes_is_of_a_picture_of_comfyuis(fields: str) -> None:
    text = f"a fox <lora:ogre:0.5>\nSteps: 20, Sampler: euler_ancestral_karras, CFG scale: 7, Seed: 5, Size: 512x768, {fields}"
    asked = request_from_text(text)
    assert (asked.sampler, asked.scheduler, asked.rng, asked.emphasis) == ("Euler a", "Karras", "CPU", "ComfyUI")
    assert (asked.prompt, asked.loras) == ("a fox", (lora("ogre", 0.5),))
    assert asked.clip_skip == (ClipSkip(2) if "Clip" in fields else None) and asked.counted_by is None


def picture(folder: Path, **texts: str) -> tuple[str, ...]:
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add_itxt(key.replace("__", ":").replace("_adobe_", ".adobe.").replace("_xmp", ".xmp"), text)
    Image.new("RGB", (64, 64)).save(folder / "a.png", pnginfo=info)
    return infotexts_of((folder / "a.png").read_bytes(), "a.png")


def test_a_graph_comes_before_the_settings_text_beside_it_and_takes_its_hashes(tmp_path: Path) -> None:
    text = "unknown\nSteps: 9, Sampler: euler_simple, CFG scale: 8, Seed: 0, Size: 64x64, Model: foxmix, Model hash: 0123456789"
    asked = request_from_texts(picture(tmp_path, parameters=text, prompt=json.dumps(PLAIN)))
    alone = request_from_text(json.dumps(PLAIN))
    assert (asked.prompt, asked.seed, asked.clip_skip) == (alone.prompt, alone.seed, alone.clip_skip)
    assert asked.model_hash == ("0123456789" if alone.model == "foxmix" else None)
    assert unused(asked)["prompt in the picture's other settings"] == "unknown"


def test_a_graph_that_cannot_be_read_leaves_the_settings_text_to_count(tmp_path: Path) -> None:
    graph = {"1": {"class_type": "KSampler", "inputs": {}}}
    asked = request_from_texts(picture(tmp_path, parameters=LINE + "Version: ComfyUI", prompt=json.dumps(graph)))
    assert (asked.prompt, asked.emphasis) == ("a fox", "ComfyUI") and "other settings in the picture" in unused(asked)


XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description><xmp:CreatorTool>Draw Things</xmp:CreatorTool><exif:UserComment>'
    '<rdf:Alt><rdf:li xml:lang="x-default">{}</rdf:li></rdf:Alt></exif:UserComment></rdf:Description></rdf:RDF></x:xmpmeta>'
)


def test_draw_things_picture_has_its_record_in_xmp(tmp_path: Path) -> None:
    packet = XMP.format(json.dumps(DRAW_THINGS).replace('"', "&quot;"))
    asked = request_from_texts(picture(tmp_path, XML__com_adobe_xmp=packet))
    assert (asked.prompt, asked.clip_skip, asked.height) == ("a fox", ClipSkip(2), 768)


@pytest.mark.parametrize("packet", ["<exif:UserComment>", "<exif:UserComment><rdf:li", "<rdf:li>x</rdf:li>", "x" * 9])
def test_broken_xmp_is_no_settings(tmp_path: Path, packet: str) -> None:
    assert picture(tmp_path, XML__com_adobe_xmp=packet, parameters=LINE) == (LINE,)


def jpeg(folder: Path, tag: int, text: str, size: tuple[int, int] = (64, 64)) -> tuple[str, ...]:
    exif = Image.Exif()
    if tag == 0x9286:
        exif.get_ifd(0x8769)[tag] = b"ASCII\0\0\0" + text.encode()
    else:
        exif[tag] = text
    Image.new("RGB", size).save(folder / "a.jpg", exif=exif)
    return infotexts_of((folder / "a.jpg").read_bytes(), "a.jpg")


@pytest.mark.parametrize(("tag", "before"), [(0x0110, "prompt:"), (0x010F, "Prompt: ")])
def test_comfyuis_graph_stands_in_exif_too(tmp_path: Path, tag: int, before: str) -> None:
    asked = request_from_texts(jpeg(tmp_path, tag, before + json.dumps(PLAIN)))
    assert asked.seed == request_from_text(json.dumps(PLAIN)).seed


def test_novelais_webp_has_its_chunks_in_one_comment(tmp_path: Path) -> None:
    comment = json.dumps(
        {"prompt": "a {fox}", "uc": "x", "steps": 28, "sampler": "k_euler", "seed": 7, "width": 512, "height": 768}
    )
    whole = {"Comment": comment, "Description": "a {fox}", "Software": "NovelAI", "Source": "NovelAI 3"}
    asked = request_from_texts(jpeg(tmp_path, 0x9286, json.dumps(whole)))
    assert (asked.prompt, asked.negative_prompt, asked.seed) == ("a (fox:1.05)", "x", 7)
    assert (asked.clip_skip, asked.model, asked.sampler) == (ClipSkip(2), "NovelAI 3", "Euler")


CIVITAI: Json = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "urn:air:sd1:checkpoint:civitai:4201@130072"}},
    "2": {"class_type": "VAEEncode", "inputs": {}},
    "extra": {"airs": ["urn:air:sd1:lora:civitai:11@22"]},
    "extraMetadata": json.dumps({
        "prompt": "a fox", "negativePrompt": "blurry", "steps": 25, "cfgScale": 5, "sampler": "euler_ancestral", "seed": 3,
        "clipSkip": 2, "resources": [{"modelVersionId": 130072, "strength": 1}, {"modelVersionId": 22, "strength": 0.5}],
    }),
}  # fmt: skip


def test_civitais_generator_says_what_its_graph_was_made_of() -> None:
    asked = read(CIVITAI)
    assert (asked.prompt, asked.clip_skip, asked.seed, asked.sampler) == ("a fox", ClipSkip(2), 3, "Euler a")
    assert asked.model == "Civitai model version 130072" and asked.loras == (lora("Civitai model version 22", 0.5),)
    assert {"extra", "graph's nodes"} <= unused(asked).keys()


def test_an_older_graph_of_civitais_generator_has_only_a_list_of_its_files_beside_it() -> None:
    asked = read(PLAIN | {"extra": CIVITAI["extra"]})
    assert (asked.prompt, asked.clip_skip, asked.seed) == ("1girl, #1 fan, red dress", ClipSkip(2), 7)
    assert unused(asked).keys() == {"extra"}


def test_a_resource_of_civitai_without_a_type_is_an_error() -> None:
    with pytest.raises(SpecError, match="without a type"):
        read(CIVITAI, extra={}, **{"1": {"class_type": "X", "inputs": {}}})


def test_what_draw_things_says_in_its_second_form_alone_is_read() -> None:
    record = {key: value for key, value in DRAW_THINGS.items() if key not in ("lora", "clip_skip")}
    second = {"clipSkip": 2, "loras": [{"file": "ogre_lora_f16.ckpt", "weight": 0.6, "mode": "all"}]}
    asked = read(record | {"v2": second})
    assert (asked.loras, asked.clip_skip) == ((lora("ogre_lora_f16", 0.6),), ClipSkip(2))
    with pytest.raises(SpecError, match="disagree"):
        read(DRAW_THINGS | {"v2": {"clipSkip": 3}})


EASY: Json = {
    "prompt": "a fox, easy",
    "seed": 5,
    "use_stable_diffusion_model": "m",
    "sampler_name": "euler_a",
    "clip_skip": False,
}


def test_easy_diffusions_files_are_read_or_an_error() -> None:
    asked = read(EASY | {"use_lora_model": "ogre", "lora_alpha": 0.5, "use_embeddings_model": ["easy"]})
    assert (asked.loras, asked.unused) == ((lora("ogre", 0.5),), ())
    assert (
        read(EASY | {"use_hypernetwork_model": "h", "hypernetwork_strength": 0.5}).prompt
        == "a fox, easy<hypernet:h:0.5>"
    )
    with pytest.raises(SpecError, match="names the embedding 'other"):
        read(EASY | {"use_embeddings_model": ["other.pt"]})


def test_the_info_of_an_api_answer_has_what_it_says_in_its_parameters() -> None:
    info = {
        "prompt": "a fox <lora:ogre:1>", "seed": 5, "sampler_name": "Euler a", "clip_skip": 2, "steps": 20, "cfg_scale": 7,
        "width": 512, "height": 512,
        "sd_model_name": "m", "extra_generation_params": {"Schedule type": "Karras", "Lora hashes": "ogre: 0123456789ab"},
    }  # fmt: skip
    asked = read(info)
    assert (asked.scheduler, asked.lora_hashes, asked.unused) == ("Karras", (("ogre", "0123456789ab"),), ())


FOOOCUS_TEXT = (
    "a fox <lora:ink:0.3>\nNegative prompt: bad\nSteps: 30, Sampler: DPM++ 2M SDE Karras, Seed: 5, Size: 896x1152, CFG scale: 4, "
    "Sharpness: 2, "
    'ADM Guidance: "(1.5, 0.8, 0.3)", Model: jugg, Model hash: aeb7e9e689, Performance: Speed, Scheduler: karras, VAE: Default (model), '
    'Lora hashes: "ogre: 4852686128, gnome: 0123456789", Lora weights: "ogre: 0.1, gnome: -0.5", Clip skip: 2, Version: Fooocus v2.5.5'
)


def test_fooocus_settings_in_a1111s_form_are_read_as_fooocus_draws() -> None:
    """Its modules/meta_parser.py A1111MetadataParser.to_string: LoRAs in a list of weights, its own noise and prompts."""
    asked = request_from_text(FOOOCUS_TEXT)
    assert (asked.sampler, asked.scheduler, asked.emphasis, asked.rng) == ("DPM++ 2M SDE", "Karras", "ComfyUI", "CPU")
    assert asked.loras == (lora("ink", 0.3), lora("ogre", 0.1), lora("gnome", -0.5))
    assert (asked.prompt, asked.clip_skip, asked.vae, asked.steps) == ("a fox", ClipSkip(2), None, 30)
    assert unused(asked).keys() == {"Sharpness", "ADM Guidance", "Performance", "Version"}
    assert "the mean of weighed words" in unused(request_from_text(FOOOCUS_TEXT.replace("a fox", "a (fox:1.2)")))


def test_an_api_body_is_drawn_with_its_apis_own_defaults() -> None:
    body = {"prompt": "a fox", "seed": 5, "override_settings": {"CLIP_stop_at_last_layers": 2}}
    asked = request_from_text(json.dumps(body))
    assert (asked.sampler, asked.steps, asked.cfg_scale, asked.width, asked.height) == ("Euler", 50, 7, 512, 512)
    assert asked.left_out == ("steps", "CFG scale", "sampler", "size", "model")


def test_a_whole_answer_of_the_api_is_read_by_its_info() -> None:
    info = {
        "prompt": "a fox",
        "seed": 5,
        "sampler_name": "Euler a",
        "clip_skip": 2,
        "steps": 20,
        "cfg_scale": 7,
        "width": 64,
        "height": 64,
    }
    answer = {"images": ["iVBO"], "parameters": {"prompt": "a fox", "seed": -1}, "info": json.dumps(info)}
    asked = request_from_text(json.dumps(answer))
    assert (asked.seed, asked.clip_skip, asked.width) == (5, ClipSkip(2), 64)
    assert {"images", "parameters"} <= unused(asked).keys()
