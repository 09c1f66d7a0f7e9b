"""The settings line is found wherever it stands, and the lines around it are told of."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from clipskip.errors import SpecError
from clipskip.spec import ClipSkip, Request, parse_infotext
from clipskip.spec.infotext import hide_labels
from clipskip.spec.settings import request_from_text

GOLDEN = Path(__file__).parents[1] / "golden" / "cases"
LINE = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 3, Size: 512x512, Clip skip: 2"
BLOCK = f"a fox\nNegative prompt: blurry\n{LINE}"
REPORTED = json.loads((GOLDEN / "04_settings_trailing_lines.json").read_text("utf-8"))["inputs"]


def is_the_fox(asked: Request) -> bool:
    return (asked.negative_prompt, asked.clip_skip, asked.seed, asked.width, asked.height, asked.steps) == (
        "blurry",
        ClipSkip(2),
        3,
        512,
        512,
        20,
    )


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        (REPORTED[0], [("Template", "a fox, {red|blue} fur"), ("Negative Template", "blurry")]),
        (REPORTED[1], [("Used embeddings", "EasyNegative [119b]")]),
        (REPORTED[2], [("Time taken", "3.2 sec.")]),
        (f"{BLOCK}\n\n\n", []),
        (f"{BLOCK}\nTemplate: a, by: b, in: c, of: d", [("Template", "a, by: b, in: c, of: d")]),
        (f"{BLOCK}\nsaved to disk", [("text after the settings", "saved to disk")]),
        (f"{BLOCK}\r\nTime taken: 3 sec.\r\n", [("Time taken", "3 sec.")]),
    ],
)
def test_lines_behind_the_settings_are_told_of_and_take_nothing_with_them(
    text: str, rest: list[tuple[str, str]]
) -> None:
    asked = request_from_text(text)
    assert is_the_fox(asked) and list(asked.unused) == rest


@pytest.mark.parametrize(
    "text",
    [
        BLOCK.replace(", ", " | "),
        BLOCK.replace("Seed: 3, ", "Seed: 3,\n"),
        BLOCK.replace("Euler a, ", "Euler a,\n").replace("Size", "\nSize"),
        BLOCK.replace(", ", "\n"),
        f"{BLOCK}\0",
    ],
    ids=["bars", "broken once", "broken twice", "a line each", "trailing NUL"],
)
def test_settings_with_bars_or_line_breaks_between_them_are_whole(text: str) -> None:
    asked = request_from_text(text)
    assert is_the_fox(asked) and asked.unused == () and asked.prompt == "a fox"


def test_settings_inside_a_prompt_are_read_as_a1111_reads_them_and_told_of() -> None:
    asked = request_from_text(f"a fox\nSteps: 9, Seed: 1, Size: 64x64\nNegative prompt: blurry\n{LINE}")
    assert is_the_fox(asked)
    assert asked.unused == (("a settings line inside the prompt", "Steps: 9, Seed: 1, Size: 64x64"),)


def test_a_settings_line_of_two_pairs_is_a_prompt_as_in_a1111() -> None:
    assert parse_infotext("a fox\nSteps: 20, Sampler: Euler").prompt == "a fox\nSteps: 20, Sampler: Euler"


def test_prose_around_the_guides_block_is_told_of() -> None:
    asked = request_from_text(f"My tips.\n\nPositive prompt: a fox\nNegative prompt: blurry\n{LINE}\n\nHave fun!")
    assert is_the_fox(asked) and asked.unused == (("text around the settings", "My tips.\nHave fun!"),)


@pytest.mark.parametrize("label", ["Settings: ", "Settings:\n\n", "Parameters:\nSampler: Euler a, "])
def test_a_block_may_label_its_settings(label: str) -> None:
    asked = request_from_text(f"Positive Prompt: a fox\n\nNegative Prompt: blurry\n\n{label}{LINE}\n\nSettings: mine")
    assert is_the_fox(asked) and asked.unused == (("text around the settings", "Settings: mine"),)


@pytest.mark.parametrize(
    ("positive", "negative"),
    [
        ("Positive Prompt:", "Negative Prompt:"),
        ("Positive:", "Negative:"),
        ("Prompt:", "Negative:"),
        ("Prompt:", "Negative Prompt:"),
    ],
)
@pytest.mark.parametrize("settings", [
    LINE, LINE.replace(", ", "\n"), LINE.replace(", ", "\n\n"), LINE.replace(", Seed", ",\nSeed"),
    ", ".join(reversed(LINE.split(", "))),
], ids=["one line", "a line each", "blank lines", "two lines", "steps last"])  # fmt: skip
def test_a_block_with_labelled_prompts_is_read_whole(positive: str, negative: str, settings: str) -> None:
    asked = request_from_text(f"{positive} a fox\n\n{negative} blurry\n{settings}\n\nHave fun!\nSeed: 9")
    assert is_the_fox(asked) and (asked.prompt, asked.negative_prompt) == ("a fox", "blurry")
    assert asked.unused == (("text around the settings", "Have fun!\nSeed: 9"),)


def test_a_label_beside_a1111s_own_is_a_part_of_the_prompt_as_in_a1111_and_told_of() -> None:
    asked = request_from_text(f"Prompt: {BLOCK}")
    assert is_the_fox(asked) and asked.prompt == "Prompt: a fox"
    assert asked.unused == (("left in the prompt", "Prompt: a fox"),)


@pytest.mark.parametrize("label", ["Prompt:", "Positive:", "Positive prompt:"])
def test_labels_in_a_picture_of_ours_stay_in_its_prompt(label: str) -> None:
    prompt = hide_labels(f"{label} a fox\nNegative: blurry")
    assert parse_infotext(f"{prompt}\n{LINE}").prompt == prompt != f"{label} a fox\nNegative: blurry"


def test_civitais_resources_in_a_text_are_loras_and_a_model() -> None:
    resources = [
        {"type": "checkpoint", "modelName": "Fox", "modelVersionName": "v1"},
        {"type": "lora", "weight": 0.8, "modelVersionId": 7},
        {"type": "embed", "modelName": "EasyNegative"},
    ]
    asked = request_from_text(f"{BLOCK}, Civitai resources: {json.dumps(resources)}, Civitai metadata: {{}}")
    assert is_the_fox(asked) and asked.unused == ()
    assert (asked.model, [(lora.name, lora.unet) for lora in asked.loras]) == (
        "Fox v1",
        [("Civitai model version 7", 0.8)],
    )
    assert asked.embedding_hashes == (("EasyNegative", ""),)


def test_additional_networks_are_loras() -> None:
    asked = request_from_text(
        f"{BLOCK}, AddNet Enabled: True, AddNet Module 1: LoRA, AddNet Model 1: ogre(0123456789ab), "
        "AddNet Weight A 1: 0.8, AddNet Weight B 1: 0.5"
    )
    assert [(lora.name, lora.unet, lora.text_encoder) for lora in asked.loras] == [("ogre", 0.8, 0.5)]
    assert asked.unused == (("AddNet Enabled", "True"),)


def test_the_version_of_another_program_is_told_of() -> None:
    assert request_from_text(f"{BLOCK}, Version: v1.10.1").unused == (("Version", "v1.10.1"),)
    assert request_from_text(f"{BLOCK}, Version: clipskip 0.1.0").unused == ()


FULL = "a fox\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 512x768, Model: foxmix, Clip skip: 2"


@pytest.mark.parametrize("again", ["Seed: 6", "Clip skip: 3", "Size: 640x768", "Model: other", "Sampler: Heun"])
def test_a_key_that_stands_twice_and_disagrees_is_an_error(again: str) -> None:
    with pytest.raises(SpecError, match=f"{again.partition(':')[0]}.*disagree"):
        request_from_text(f"{FULL}, {again}")


def test_another_key_that_stands_twice_is_named_with_its_earlier_value() -> None:
    asked = request_from_text(f"{FULL}, Tiling: True, Tiling: False, Seed: 5, CFG scale: 9")
    assert asked.unused == (
        ("Tiling", "False"),
        ("Tiling, which stands twice", "True"),
        ("CFG scale, which stands twice", "7"),
    )
    assert asked.cfg_scale == 9


@pytest.mark.parametrize(
    "text",
    [
        FULL.replace("\nNegative prompt:", ", Negative prompt:"),
        FULL.replace("Negative", "negative"),
        FULL.replace("Negative prompt:", "**Negative prompt:**"),
    ],
)
def test_a_negative_prompt_that_is_part_of_the_prompt_is_told_of(text: str) -> None:
    asked = request_from_text(text)
    assert asked.negative_prompt == "" and "blurry" in asked.prompt
    assert [name for name, _ in asked.unused] == ["a negative prompt inside the prompt"]


def test_sdnexts_list_of_loras_is_what_the_prompt_has_tags_of() -> None:
    tagged = FULL.replace("a fox", "a fox <lora:ogre:0.8> <lora:ink:1>")
    assert request_from_text(f'{tagged}, LoRA networks: "ogre, ink", App: SD.Next').unused == (("App", "SD.Next"),)
    with pytest.raises(SpecError, match="names the LoRA 'gnome'"):
        request_from_text(f'{tagged}, LoRA networks: "ogre, gnome", App: SD.Next')


@pytest.mark.parametrize(
    ("record", "left_out"),
    [
        (FULL, ()),
        ("a fox", ()),
        ("a fox\nSteps: 20, Sampler: Euler a, CFG scale: 7", ("seed", "size", "model")),
        ("a fox\nSteps: 20, Seed: 5, Clip skip: 2, Hashes: {\"model\": \"0123456789\"}", ("CFG scale", "sampler", "size")),
        ('{"positive_prompt": "a fox", "scheduler": "euler"}', ("seed", "steps", "CFG scale", "size", "model")),
        ('{"prompt": "a fox", "override_settings": {"CLIP_stop_at_last_layers": 2}, "width": 64, "seed": 5}',
         ("steps", "CFG scale", "sampler", "size", "model")),
    ],
)  # fmt: skip
def test_what_a_record_leaves_out_is_said_with_what_is_used(record: str, left_out: tuple[str, ...]) -> None:
    """A1111's paste leaves its page's own values there, so that a text without them is no error."""
    asked = request_from_text(record)
    assert asked.left_out == left_out
    given = asked.width and asked.height  # by A1111's API, whose bodies have a size of their own
    said = [name for name in left_out if name != "size" or not given]
    assert [told.partition(" (")[0] for told in asked.defaulted] == said
    given = replace(asked, seed=5, width=64, height=64, model="m")
    assert not {"seed", "size", "model"} & {told.partition(" (")[0] for told in given.defaulted}


@pytest.mark.parametrize("model", ["Checkpoint", "Stable Diffusion checkpoint"])
def test_settings_copied_from_a1111s_page_have_its_labels(model: str) -> None:
    line = LINE.replace("Steps", "Sampling steps").replace("Sampler", "Sampling method").replace("20", "31")
    asked = request_from_text(
        f"a fox\n{line.replace('Euler a', 'DPM++ 2M Karras')}, {model}: foxmix.safetensors [0123456789]"
    )
    assert (asked.steps, asked.sampler, asked.scheduler) == (31, "DPM++ 2M", "Karras")
    assert (asked.model, asked.model_hash, asked.unused, asked.left_out) == ("foxmix", "0123456789", (), ())


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a fox\nClip skip: 2", "Clip skip: 2"),
        ("a fox\nSteps: 20, Clip skip: 2", "Steps: 20, Clip skip: 2"),
        ("a fox\nSteps: 20; Sampler: Euler a; Seed: 1", "Steps: 20; Sampler: Euler a; Seed: 1"),
        ("a fox\nSteps：20, Sampler：Euler a, Seed：1", "Steps：20, Sampler：Euler a, Seed：1"),
        ("a fox\n- **Seed:** 5", "- **Seed:** 5"),
        ("a fox, clip skip 2, red", "a fox, clip skip 2, red"),
        (FULL.replace("a fox", "a fox\nClip skip: 3"), "Clip skip: 3"),
        (FULL.replace("a fox", "Steps: three, Seed: pods, Size: large"), "Steps: three, Seed: pods, Size: large"),
        ("Positive Prompt: a fox\nNegative Prompt: bad\nSeed: 5\nSteps: 20, Sampler: Euler a, CFG scale: 7", "Seed: 5"),
    ],
)
def test_settings_that_stay_in_a_prompt_are_told_of(text: str, line: str) -> None:
    assert ("left in the prompt", line) in request_from_text(text).unused


@pytest.mark.parametrize("prompt", ["a fox, (model:1.2), seed pods", "a skip on its steps", "vae victis"])
def test_words_that_are_no_settings_are_not(prompt: str) -> None:
    assert request_from_text(FULL.replace("a fox", prompt)).unused == ()
