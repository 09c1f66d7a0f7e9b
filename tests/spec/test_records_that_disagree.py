"""What records leave out, say twice, or say in words of their own: never a default, never A1111's by chance."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin
from spec.test_graphs import node, with_nodes
from spec.test_json_records import A1111_BODY, CIVITAI, INVOKE, SWARM, TENSORART
from spec.test_records_page import NOVELAI

from clipskip.errors import SpecError
from clipskip.image import infotexts_of
from clipskip.prompt import describe
from clipskip.spec import Request, request_from_texts
from clipskip.spec.settings import request_from_text
from clipskip.spec.word_weights import invoke_words, novelai_words

Json = dict[str, Any]
LINE = "a fox\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 512x768, Model: foxmix"


def read(record: Json) -> Request:
    return request_from_text(json.dumps(record))


def picture(folder: Path, size: tuple[int, int] = (16, 8), **texts: str) -> tuple[str, ...]:
    """The settings of a PNG with these chunks."""
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    Image.new("RGB", size).save(folder / "a.png", pnginfo=info)
    return infotexts_of((folder / "a.png").read_bytes(), "a.png")


def weights(prompt: str) -> list[tuple[str, float]]:
    """Each token of a prompt with the weight that A1111 gives it."""
    chunks = describe(prompt, steps=20).parts[0].texts[0].chunks
    return [(token.text.strip(), round(token.weight, 4)) for chunk in chunks for token in chunk.tokens]


@pytest.fixture
def no_sampler() -> Json:
    return {key: value for key, value in TENSORART.items() if key != "samplerName"}


def test_a_tensorart_record_without_a_sampler_is_an_error(no_sampler: Json) -> None:
    with pytest.raises(SpecError, match="TensorArt record names no sampler"):
        read(no_sampler)


def test_it_takes_the_sampler_of_its_pictures_graph(no_sampler: Json, tmp_path: Path) -> None:
    graph = {"1": node("KSampler_A1111", sampler_name="dpmpp_2m", scheduler="karras", seed=5)}
    texts = picture(tmp_path, generation_data=json.dumps(no_sampler) + "\0", prompt=json.dumps(graph))
    asked = request_from_texts(texts)
    assert (asked.sampler, asked.scheduler, asked.model) == ("DPM++ 2M", "Karras", "foxmix")


def test_it_takes_a_seed_that_was_drawn_from_its_pictures_graph(no_sampler: Json, tmp_path: Path) -> None:
    record = no_sampler | {"seed": "-1", "ksamplerName": "euler_ancestral", "schedule": "karras"}
    graph = {"1": node("KSampler", sampler_name="euler_ancestral", scheduler="karras", seed=3036459311)}
    asked = request_from_texts(picture(tmp_path, generation_data=json.dumps(record), prompt=json.dumps(graph)))
    assert (asked.sampler, asked.scheduler, asked.seed) == ("Euler a", "Karras", 3036459311)
    graph["2"] = node("KSampler", sampler_name="euler_ancestral", scheduler="karras", seed=7)
    assert read(record | {"graph": graph}).seed == -1


def test_a_graph_of_two_samplers_leaves_it_open(no_sampler: Json) -> None:
    graph = {name: node("X", sampler_name=name) for name in ("euler", "heun")}
    with pytest.raises(SpecError, match="names no sampler"):
        read(no_sampler | {"graph": graph})


def test_novelais_source_is_its_model(tmp_path: Path) -> None:
    texts = picture(
        tmp_path,
        (512, 512),
        Software="NovelAI",
        Source="Stable Diffusion 1D44365E",
        Description="p",
        Comment=json.dumps({"uc": "x"}),
    )
    assert request_from_texts(texts).model == "Stable Diffusion 1D44365E"


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("a {{red}} fox", "a (red:1.1025) fox"),
        ("a [dull] fox", "a (dull:0.952381) fox"),
        ("fox (smile) {x", r"fox \(smile\) (x:1.05)"),
        ("salt AND light ]", r"salt and light \]"),
    ],
)
def test_novelais_weights_become_a1111s(theirs: str, ours: str) -> None:
    assert novelai_words(theirs) == ours and read(NOVELAI | {"prompt": theirs}).prompt == ours


def test_a1111_reads_them_with_novelais_weights() -> None:
    found = dict(weights(novelai_words("a {{red}} (fox) [dull]")))
    assert [found[word] for word in ("a", "red", "fox", "dull")] == [1, 1.1025, 1, 0.9524]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("a red++ fox", "a (red:1.21) fox"),
        ("a (red fox)1.3, (dull)-", "a (red fox:1.3), (dull:0.9)"),
        ("a (fox) [in] snow", r"a fox \[in\] snow"),
        (r"fox \(animal\), wide-angle", r"fox \(animal\), wide-angle"),
        ("((deep)+ water)0.5", "(deep:0.55) (water:0.5)"),
    ],
)
def test_invokeais_weights_become_a1111s(theirs: str, ours: str) -> None:
    assert invoke_words(theirs) == ours and read(INVOKE | {"positive_prompt": theirs}).prompt == ours


@pytest.mark.parametrize("prompt", ['("a", "b").blend(1, 2)', "a (cat).swap(dog)"])
def test_invokeais_calls_are_errors(prompt: str) -> None:
    with pytest.raises(SpecError, match=r"calls \."):
        read(INVOKE | {"positive_prompt": prompt})


@pytest.mark.parametrize(
    ("kind", "inputs"), [("Mystery", {"ratio": "3:4"}), ("SDXL Picker", {"resolution": "832x1216", "batch_size": 1})]
)
def test_a_latent_of_unknown_size_is_an_error_but_in_a_picture(tmp_path: Path, kind: str, inputs: Json) -> None:
    graph = with_nodes({"latent_image": ["70", 0]}, n70=node(kind, **inputs))
    del graph["5"]
    with pytest.raises(SpecError, match=f"begins at {kind}") as caught:
        read(graph)
    assert caught.value.field == "size"
    asked = request_from_texts(picture(tmp_path, (64, 96), prompt=json.dumps(graph)))
    assert (asked.width, asked.height) == (64, 96)


@pytest.mark.parametrize(
    ("record", "both"),
    [
        (CIVITAI | {"Seed": 5, "seed": 6}, ("Seed 5", "seed 6")),
        (A1111_BODY | {"sampler": "Heun"}, ("Heun", "sampler_name")),
        (CIVITAI | {"Size": "512x768", "width": 640}, ("512x768", "640")),
        (A1111_BODY | {"model": "other"}, ("other", "sd_model_checkpoint")),
    ],
)
def test_two_keys_that_disagree_are_an_error_that_names_both(record: Json, both: tuple[str, str]) -> None:
    with pytest.raises(SpecError, match="disagree") as caught:
        read(record)
    assert all(told in str(caught.value) for told in both)


def test_two_keys_that_say_the_same_are_one() -> None:
    asked = read(A1111_BODY | {"model": "sd15/foxmix.safetensors", "sampler_index": "Euler"})
    assert asked.model == "foxmix" and asked.unused == (("sampler_index", "Euler"),)


def test_what_a_pictures_second_settings_say_otherwise_is_named(tmp_path: Path) -> None:
    other = {"sui_image_params": SWARM["sui_image_params"] | {"prompt": "a fox", "seed": 6}}
    texts = picture(tmp_path, parameters=LINE, generation_data=json.dumps(other))
    asked = request_from_texts(texts)
    told = dict(asked.unused)
    assert asked.seed == 5 and told["seed in the picture's other settings"] == "6"
    assert "width in the picture's other settings" not in told and len(texts) == 2


def test_second_settings_that_are_not_understood_are_named() -> None:
    asked = request_from_texts([LINE, json.dumps({"1": node("X")})])
    assert asked.seed == 5 and asked.unused[-1][0] == "other settings in the picture"


def test_the_same_settings_twice_are_named_once() -> None:
    assert request_from_texts([LINE, LINE + "\n"]) == request_from_text(LINE)


def test_civitais_base_model_is_a_family() -> None:
    asked = read(CIVITAI | {"baseModel": "SDXL 1.0"})
    assert asked.model == read(CIVITAI).model and ("base model's family", "SDXL 1.0") in asked.unused


def test_stabilitymatrix_json_is_read_as_a1111s() -> None:
    record = {
        "PositivePrompt": "a (fox:1.2)", "NegativePrompt": "blurry", "Steps": 20, "Sampler": "DPM++ 2M Karras", "CfgScale": 7,
        "Seed": 5, "Height": 768, "Width": 512, "ModelHash": "0123456789", "ModelName": "foxmix.safetensors",
    }  # fmt: skip
    asked = read(record)
    assert (asked.prompt, asked.model, asked.model_hash, asked.height) == ("a (fox:1.2)", "foxmix", "0123456789", 768)
    assert (asked.sampler, asked.scheduler, asked.unused) == ("DPM++ 2M", "Karras", ())


@pytest.mark.parametrize("prompt", ["a" + "+" * 99_999, "(" * 99_999, "(a)" + "9" * 99_999, "{[" * 30, "1." * 50_000])
def test_hostile_weights_are_never_infinite(prompt: str) -> None:
    for words in (invoke_words, novelai_words):
        try:
            assert "inf" not in words(prompt)
        except SpecError as error:
            assert len(str(error)) < 200


def test_tensorarts_second_name_of_its_sampler_gives_way(no_sampler: Json) -> None:
    assert read(no_sampler | {"ksamplerName": "euler_ancestral"}).sampler == "Euler a"
    asked = read(TENSORART | {"ksamplerName": "dpmpp_2m"})
    assert asked.sampler == "DPM++ 2M" and ("ksamplerName", "dpmpp_2m") in asked.unused


def test_easy_diffusions_schedule_is_read() -> None:
    record = {"prompt": "a", "use_stable_diffusion_model": "sd", "sampler_name": "dpmpp_2m", "scheduler_name": "karras"}
    assert (read(record).sampler, read(record).scheduler) == ("DPM++ 2M", "Karras")
