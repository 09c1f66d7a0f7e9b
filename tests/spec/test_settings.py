"""What a block asks for, what a picture's settings say, and that the one asks for the other again."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipskip.errors import SkipOutOfRange, SpecError
from clipskip.prompt import extract_tags, strip_comments
from clipskip.prompt.tags import lora_refs
from clipskip.spec import (
    ClipSkip,
    FileRef,
    LoraRef,
    PhraseSkip,
    Render,
    SkipSchedule,
    parse_infotext,
    parse_skip,
    render_infotext,
    request_from_infotext,
    shared_infotext,
)
from clipskip.spec.settings import request_from_text, writable

CALM = settings(deadline=None, derandomize=True, max_examples=100)
BLOCK = "a cat\nNegative prompt: a dog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 512x768"
RENDER = Render(
    prompt="best quality, (swamp:1.2)",
    negative_prompt="lowres, blurry",
    model=FileRef(name="anything-v4.0-pruned", hash="69528490df"),
    loras=(LoraRef(name="shrek", text_encoder=0.8, unet=0.8, hash="0123456789ab"),),
    clip_skip=ClipSkip(3),
    steps=30,
    scheduler="Karras",
    sampler="DPM++ 2M",
    seed=5,
    version="0.1.0",
)


def test_a_pictures_settings_are_one_line_that_starts_with_steps() -> None:
    assert render_infotext(RENDER) == (
        "best quality, (swamp:1.2) <lora:shrek:0.8>\nNegative prompt: lowres, blurry\n"
        "Steps: 30, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 5, Size: 512x512, "
        "Model hash: 69528490df, Model: anything-v4.0-pruned, Clip skip: 3, RNG: CPU, "
        'Lora hashes: "shrek: 0123456789ab", Version: clipskip 0.1.0, '
        'Hashes: {"model": "69528490df", "lora:shrek": "0123456789ab"}'
    )


def test_clip_skip_1_is_written_too() -> None:
    assert "Clip skip: 1," in render_infotext(replace(RENDER, clip_skip=ClipSkip(1)))


def test_a_block_is_a_request_with_a1111s_defaults() -> None:
    asked = request_from_text(BLOCK)
    assert (asked.prompt, asked.negative_prompt, asked.seed, asked.width, asked.height) == (
        "a cat",
        "a dog",
        5,
        512,
        768,
    )
    assert (asked.clip_skip, asked.rng, asked.scheduler, asked.emphasis) == (
        ClipSkip(1),
        "GPU",
        "Automatic",
        "Original",
    )
    assert (asked.negative_clip_skip, asked.model, asked.ensd, asked.variation_strength) == (None, None, 0, 0)


def test_a_prompt_alone_leaves_everything_open() -> None:
    asked = request_from_text("a cat\non a mat")
    assert (asked.prompt, asked.clip_skip, asked.rng, asked.width) == ("a cat\non a mat", None, "CPU", None)


@pytest.mark.parametrize(
    ("field", "skip"),
    [
        ("Clip skip: 2", 2),
        ("Clip Skip: 2", 2),
        ("CLIP skip: 2", 2),
        ("CLiP-skip: 2", 2),
        ("CLiP-skip: 1.5", 1.5),
        ("clip_skip: 2", 2),
        ("Clip_skip: 2", 2),
        ("clipSkip: 2", 2),
        ("Clip Skip: True", 2),
        ("Clip Skip: No", 1),
        ("Clip skip: 2, CLiP-skip: 2", 2),
        ("Clip skip: 1, Fractional clip skip: 1.25", 1.25),
        ('Clip skip: 1, Clip skip schedule: "[1:2:0.5]"', "[1:2:0.5]"),
        ('Clip skip: 1, Clip skip schedule: "[1.5:2:0.5]"', "[1.5:2:0.5]"),
        ("Clip skip schedule: [1|2]", "[1|2]"),
        ("Clip skip: [1:2:0.5]", "[1:2:0.5]"),
    ],
)
def test_every_spelling_of_clip_skip_is_understood(field: str, skip: float | str) -> None:
    assert request_from_text(f"{BLOCK}, {field}").clip_skip == parse_skip(str(skip))


@pytest.mark.parametrize(
    ("name", "sampler", "schedule"),
    [
        ("DPM++ 2M Karras", "DPM++ 2M", "Karras"),
        ("DPM++ 2M SDE Heun Exponential", "DPM++ 2M SDE Heun", "Exponential"),
        ("Euler a", "Euler a", "Automatic"),
        ("DPM++ 2M, Schedule type: SGM Uniform", "DPM++ 2M", "SGM Uniform"),
        ("DPM++ 2M Karras, Schedule type: Automatic", "DPM++ 2M", "Karras"),
        ("DPM++ 2M Karras, Schedule type: Exponential", "DPM++ 2M Karras", "Exponential"),
    ],
)
def test_an_old_samplers_name_holds_its_schedule(name: str, sampler: str, schedule: str) -> None:
    asked = request_from_text(BLOCK.replace("Euler a", name))
    assert (asked.sampler, asked.scheduler) == (sampler, schedule)


@pytest.mark.parametrize("sampler", ["DDIM", "UniPC", "PLMS", "DPM adaptive"])
def test_a_schedule_type_that_a1111_notes_and_does_not_use_is_not_used(sampler: str) -> None:
    asked = request_from_text(f"{BLOCK.replace('Euler a', sampler)}, Schedule type: Karras")
    assert (asked.sampler, asked.scheduler, asked.unused) == (sampler, "Automatic", (("Schedule type", "Karras"),))
    assert request_from_text(f"{BLOCK.replace('Euler a', sampler)}, Schedule type: Automatic").unused == ()


def test_a1111s_noise_schedule_is_no_schedule_type() -> None:
    asked = request_from_text(
        "a fox\nSteps: 20, Sampler: Euler, Seed: 5, Size: 512x512, Noise Schedule: Zero Terminal SNR"
    )
    assert (asked.scheduler, asked.noise_schedule) == ("Automatic", "Zero Terminal SNR")


def test_styles_are_in_a1111s_prompt_already_so_a_placeholder_is_text() -> None:
    assert request_from_text(BLOCK.replace("a cat", "{prompt}, oil painting")).prompt == "{prompt}, oil painting"


def test_hashes_of_loras_are_kept_from_both_lists() -> None:
    block = BLOCK.replace("a cat", "a cat <lora:a:1> <lora:b c:1> <lora:d:1>")
    asked = request_from_text(f'{block}, Lora hashes: "a: 11, b c: 22", Hashes: {{"model": "99", "lora:d": "33"}}')
    assert dict(asked.lora_hashes) == {"a": "11", "b c": "22", "d": "33"} and asked.unused == ()


def test_what_is_not_read_is_kept() -> None:
    asked = request_from_text(f'{BLOCK}, Tiling: True, Note: "a, b", Denoising strength: 0.5')
    assert asked.unused == (("Tiling", "True"), ("Note", "a, b"), ("Denoising strength", "0.5"))


def test_a_hypernetwork_becomes_a_tag_as_in_a1111() -> None:
    assert request_from_text(f"{BLOCK}, Hypernet: anime, Hypernet strength: 0.5").prompt == "a cat<hypernet:anime:0.5>"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("Steps: 20", "Steps: many", ["Steps", "many"]),
        ("Steps: 20", "Steps: 20.5", ["Steps", "20.5"]),
        ("Steps: 20", "Steps: 1000000000", ["steps", "1000000000", "150"]),
        ("Steps: 20", f"Steps: {'9' * 400}", ["Steps", "999"]),
        ("512x768", "0x99999", ["Size", "0x99999"]),
        ("512x768", "510x512", ["Size", "510", "multiple of 8"]),
        ("512x768", "large", ["Size", "large", "512x512"]),
        ("CFG scale: 7", "CFG scale: nan", ["CFG scale", "nan"]),
        ("CFG scale: 7", "CFG scale: 700", ["cfg scale", "700"]),
        ("Seed: 5", "Seed: abc", ["Seed", "abc"]),
        ("Seed: 5", "Seed: 18446744073709551616", ["seed", "18446744073709551616"]),
        ("Seed: 5", "Seed: 5, Clip skip: two", ["Clip skip", "two"]),
        ("Seed: 5", "Seed: 5, Clip skip: 0", ["Clip skip", "0"]),
        ("Seed: 5", "Seed: 5, Clip skip: 1, CLiP-skip: 2", ["Clip skip 1", "CLiP-skip 2", "disagree"]),
        ("Seed: 5", "Seed: 5, Clip skip: 3, Fractional clip skip: 1.5", ["disagree"]),
        ("Seed: 5", "Seed: 5, Clip skip: 2, Clip skip schedule: [1|2]", ["disagree"]),
        ("Seed: 5", "Seed: 5, Clip skip schedule: [1|2", ["Clip skip schedule", "cannot be read"]),
        ("Seed: 5", "Seed: 5, Negative clip skip: x", ["Negative clip skip", "x"]),
        ("Seed: 5", "Seed: 5, Phrase clip skips: frog", ["Phrase clip skips", "frog", "no clip skip"]),
        ("Seed: 5", 'Seed: 5, Phrase clip skips: "a=1\\na=2"', ["'a' has 2 clip skips"]),
        ("Seed: 5", "Seed: 5, RNG: TPU", ["rng", "TPU"]),
        ("Seed: 5", "Seed: 5, Emphasis: Loud", ["emphasis", "Loud"]),
        ("Seed: 5", "Seed: 5, ENSD: often", ["ENSD", "often"]),
        ("Seed: 5", "Seed: 5, Variation seed strength: 2", ["variation strength", "2"]),
    ],
)
def test_nonsense_in_a_block_names_the_field_and_the_value(old: str, new: str, words: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        request_from_text(BLOCK.replace(old, new))
    assert all(word in str(caught.value).replace("512x768", "512x512") for word in words), caught.value
    assert caught.value.field and "\n" not in str(caught.value)


def test_a_clip_skip_that_is_none_is_out_of_range() -> None:
    with pytest.raises(SkipOutOfRange):
        request_from_text(f"{BLOCK}, Clip skip: -3")


@pytest.mark.parametrize("text", ["", " \n", BLOCK.split("\n")[-1]])
def test_settings_without_a_prompt_are_asked_for_whole(text: str) -> None:
    with pytest.raises(SpecError, match="whole block"):
        request_from_text(text)


def asked_again(render: Render) -> Render:
    """The render that a picture's settings ask for, as a sweep resolves them: tags become LoRAs."""
    asked = request_from_infotext(parse_infotext(render_infotext(render)))
    prompt, tags = extract_tags(strip_comments(asked.prompt))
    hashes = dict(asked.lora_hashes)
    assert asked.clip_skip and asked.width and asked.height and asked.unused == ()
    return replace(
        render,
        prompt=prompt.strip(),
        negative_prompt=asked.negative_prompt,
        loras=tuple(replace(lora, hash=hashes[lora.name]) for lora in lora_refs(tags)),
        model=FileRef(name=asked.model or "", hash=asked.model_hash or ""),
        clip_skip=asked.clip_skip,
        negative_clip_skip=asked.negative_clip_skip,
        phrase_skips=asked.phrase_skips,
        steps=asked.steps,
        sampler=asked.sampler,
        scheduler=asked.scheduler,
        cfg_scale=asked.cfg_scale,
        seed=asked.seed,
        width=asked.width,
        height=asked.height,
        emphasis=asked.emphasis,
        rng=asked.rng,
        ensd=asked.ensd,
        variation_seed=asked.variation_seed,
        variation_strength=asked.variation_strength,
    )


NUMBERS = st.floats(-4, 4, width=32)
NAMES = st.from_regex(r"[A-Za-z0-9_.' \[\]()é-]{1,12}", fullmatch=True).map(str.strip).filter(bool)
LORAS = st.builds(LoraRef, name=NAMES, text_encoder=NUMBERS, unet=NUMBERS, hash=st.just("0123456789ab"))
WORDS = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"], exclude_characters="<#"), min_size=1, max_size=9
)
LAYERS = (st.integers(1, 12) | st.floats(1, 12)).map(ClipSkip)
SKIPS = LAYERS | st.builds(
    SkipSchedule, skips=st.tuples(LAYERS, LAYERS), when=st.none() | st.integers(1, 99) | st.floats(0.001, 0.999)
)
PHRASES = st.builds(PhraseSkip, phrase=st.text(min_size=1, max_size=12).filter(lambda t: t.strip()), skip=SKIPS)
PROMPTS = st.lists(WORDS, max_size=5).map(" ".join)
RENDERS = st.builds(
    Render,
    prompt=PROMPTS,
    negative_prompt=PROMPTS,
    model=st.builds(FileRef, name=NAMES, hash=st.just("69528490df")),
    loras=st.lists(LORAS, max_size=3, unique_by=lambda lora: lora.name).map(tuple),
    clip_skip=SKIPS,
    negative_clip_skip=st.none() | SKIPS,
    phrase_skips=st.lists(PHRASES, max_size=3, unique_by=lambda one: one.phrase).map(tuple),
    steps=st.integers(1, 150),
    sampler=st.sampled_from(["Euler a", "DPM++ 2M", "Heun"]),
    scheduler=st.sampled_from(["Automatic", "Karras", "SGM Uniform"]),
    cfg_scale=st.floats(1, 30),
    seed=st.integers(0, 2**64 - 1),
    width=st.integers(8, 256).map(lambda cells: cells * 8),
    emphasis=st.sampled_from(["Original", "No norm", "Ignore", "None"]),
    rng=st.sampled_from(["CPU", "GPU", "NV"]),
    ensd=st.sampled_from([0, 31337, -5]),
    version=st.just("0.1.0"),
)


@CALM
@given(RENDERS)
def test_any_pictures_settings_ask_for_the_same_picture(render: Render) -> None:
    assert asked_again(render).key == render.key


@CALM
@given(RENDERS, st.integers(0, 2**32), st.floats(0.01, 1))
def test_variations_are_asked_for_again(render: Render, seed: int, strength: float) -> None:
    varied = replace(render, variation_seed=seed, variation_strength=strength)
    assert asked_again(varied).key == varied.key


@pytest.mark.parametrize(
    "prompt",
    [
        "Negative prompt: is a label",
        "a\nNegative prompt: b\nc",
        "Steps: 20, Sampler: Euler, CFG scale: 7",
        "a\n  Steps: 20, Sampler: Euler, CFG scale: 7\nb",
        "Positive Prompt: a\nb",
        "Hashes: {}",
        "",
    ],
)
def test_labels_in_a_prompt_lose_their_capitals_alone(prompt: str) -> None:
    again = asked_again(replace(RENDER, prompt=prompt, negative_prompt=prompt))
    for text in (again.prompt, again.negative_prompt):
        assert text.lower().split() == prompt.lower().split()


def test_names_lose_what_would_end_them_early() -> None:
    render = replace(
        RENDER,
        model=FileRef(name='my "best", v1: x', hash="69528490df"),
        loras=(LoraRef(name="a, b: <c>=#", hash="0123456789ab"),),
        embeddings=(FileRef(name='bad, "hands"', hash="ba9876543210"),),
    )
    asked = request_from_infotext(parse_infotext(render_infotext(render)))
    assert asked.model == "my best v1 x" and asked.prompt.endswith("<lora:a b c:1>")
    assert asked.lora_hashes == (("a b c", "0123456789ab"),)
    assert parse_infotext(render_infotext(render)).fields["TI hashes"] == "bad hands: ba9876543210"


def test_a_name_of_nothing_but_marks_is_its_hash() -> None:
    assert writable(':,"') == "" and "<lora:0123456789ab:1>" in render_infotext(
        replace(RENDER, loras=(LoraRef(name=':,"', hash="0123456789ab"),))
    )


def test_a1111_can_take_our_whole_number_where_the_skip_is_a_fraction() -> None:
    fields = parse_infotext(render_infotext(replace(RENDER, clip_skip=ClipSkip(1.5)))).fields
    assert (fields["Clip skip"], fields["Fractional clip skip"]) == ("1", "1.5")


def test_a1111_can_take_the_first_whole_number_of_a_schedule_and_the_rest_stands_in_fields_of_ours() -> None:
    render = replace(
        RENDER,
        clip_skip=parse_skip("[2.5:4:0.5]"),
        negative_clip_skip=parse_skip("[1|2]"),
        phrase_skips=(PhraseSkip.parse("swamp=6"), PhraseSkip.parse("best quality=[1:3:5]")),
    )
    fields = parse_infotext(render_infotext(render)).fields
    assert (fields["Clip skip"], fields["Clip skip schedule"]) == ("2", "[2.5:4:0.5]")
    assert fields["Negative clip skip"] == "[1|2]" and "Fractional clip skip" not in fields
    assert fields["Phrase clip skips"] == "swamp=6\nbest quality=[1:3:5]"


def test_what_the_pictures_of_a_sweep_share_can_be_pasted_as_settings() -> None:
    render = replace(
        RENDER, negative_clip_skip=ClipSkip(3), phrase_skips=(PhraseSkip.parse("swamp=6"),), emphasis="Ignore"
    )
    text = shared_infotext(render)
    assert "Clip skip:" not in text and "shrek" not in text and len(text.split("\n")) == 3
    asked, whole = request_from_text(text), request_from_text(render_infotext(replace(render, loras=())))
    assert replace(asked, clip_skip=whole.clip_skip) == whole
