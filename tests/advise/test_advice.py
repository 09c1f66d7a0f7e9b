import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from clipskip.advise import Advice, Wanted, advise
from clipskip.advise.prompted import Prompted, phrases_of, without
from clipskip.doors.advice_text import advice_json, lines
from clipskip.errors import NotFound, SpecError
from clipskip.prompt import token_ids
from clipskip.spec import ClipSkip, Dialect, Family, LoraRef, Request
from clipskip.sweep import Model, open_model
from clipskip.weights import FileKind, Library

PROMPT = "best quality, swamp, (fireflies, dancing:1.2), ogre"


@pytest.fixture(scope="module")
def wanted() -> Wanted:
    return Wanted(request=Request(prompt=PROMPT, loras=(LoraRef(name="ogre"),), seed=5), skips=(1, 2, 12))


@pytest.fixture(scope="module")
def told() -> list[tuple[int, int]]:
    return []


@pytest.fixture(scope="module")
def advice(model: Model, library: Library, wanted: Wanted, told: list[tuple[int, int]]) -> Advice:
    before = {name: value.clone() for name, value in model.reader.encoders[0].network.state_dict().items()}
    advice = advise(model, wanted, library, tell=lambda rows, most: told.append((rows, most)))
    after = model.reader.encoders[0].network.state_dict()
    assert all(value.equal(before[name]) for name, value in after.items()), "the model is put back"
    return advice


def test_a_prompt_s_phrases_are_what_stands_between_its_commas() -> None:
    assert phrases_of(PROMPT) == ("best quality", "swamp", "(fireflies, dancing:1.2)", "ogre")
    assert phrases_of("a red frog left of a blue owl") == ("frog", "left", "blue")


@pytest.mark.parametrize(
    ("phrase", "left"),
    [
        ("swamp", "best quality, (fireflies, dancing:1.2), ogre"),
        ("ogre", "best quality, swamp, (fireflies, dancing:1.2)"),
    ],
)
def test_a_prompt_without_a_phrase_reads_as_if_it_had_never_been_there(phrase: str, left: str) -> None:
    assert without(PROMPT, phrase) == left


def test_a_word_inside_another_stays() -> None:
    assert without("ogres, ogre", "ogre") == "ogres"


def test_advice_has_a_number_for_every_phrase_and_lora_at_every_clip_skip(
    model: Model, advice: Advice, told: list[tuple[int, int]]
) -> None:
    said = json.loads(json.dumps(advice_json(advice, family=model.facts.family)))
    prompted = said["prompted"]
    assert prompted["skips"] == [1, 2, 12]
    assert prompted["guidance_kept"][1] == 1
    assert [one["phrase"] for one in prompted["phrases"]] == list(phrases_of(PROMPT))
    (lora,) = prompted["loras"]
    assert lora["text_layers"] == [4]
    assert lora["text_dead_from"] == 10
    # layer 4 is the ninth from the end: at Clip Skip 12 its change cannot be felt, and the UNet's part is empty
    assert lora["whole"][2] == 0
    assert lora["by_unet"] == [0, 0, 0]
    assert lora["uptake"][1] == 1
    assert told[-1][0] == advice.rows <= told[-1][1]
    assert {row["tool"]: row["number"] for row in said["tools"]}["diffusers"] == "1"


def test_the_text_says_the_value_in_the_tool_s_own_numbers(model: Model, advice: Advice) -> None:
    first = next(iter(lines(advice, family=model.facts.family, tool=Dialect.DIFFUSERS)))
    assert first.startswith("Clip Skip 1 in diffusers")


def test_a_negative_prompt_that_says_the_same_leaves_nothing_to_measure(
    model: Model, library: Library, wanted: Wanted
) -> None:
    same = replace(wanted, request=replace(wanted.request, negative_prompt=PROMPT, loras=()))
    with pytest.raises(SpecError, match="prompt and negative prompt are the same"):
        advise(model, same, library)


def test_answers_that_are_no_numbers_are_an_error(model: Model, library: Library, wanted: Wanted) -> None:
    strong = replace(wanted, request=replace(wanted.request, loras=(LoraRef(name="ogre", text_encoder=3e38, unet=1),)))
    with pytest.raises(SpecError, match=r"contains? NaN or infinity"):
        advise(model, strong, library)


@pytest.mark.slow
def test_captioned_pictures_are_cut_to_the_model_s_square_and_asked_about(
    model: Model, library: Library, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for n in range(3):
        Image.fromarray(rng.integers(0, 255, (90, 200, 3), dtype=np.uint8)).save(tmp_path / f"{n}.png")
        (tmp_path / f"{n}.txt").write_text("a frog, swamp")
    (tmp_path / "alone.png").write_bytes((tmp_path / "0.png").read_bytes())
    advice = advise(model, Wanted(request=Request(prompt=""), skips=(1, 2), images=tmp_path), library)
    ((name, trained),) = advice.measured
    assert (name, trained.pictures) == ("tiny", 3)
    certain = max(chance for _, chance in trained.chances) >= 0.995
    assert trained.looks == 12 or (certain and 8 <= trained.looks < 12), "four looks at each, or until one is sure"
    assert advice.prompted is None


def test_a_folder_without_captions_is_refused_with_what_to_do(model: Model, library: Library, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    with pytest.raises(NotFound, match=r"1 pictures and no caption; put a text"):
        advise(model, Wanted(request=Request(prompt=""), skips=(1,), images=tmp_path), library)


def test_layers_between_two_are_not_compared() -> None:
    from clipskip.advise import whole_skips

    with pytest.raises(SpecError, match="between two layers"):
        whole_skips([ClipSkip(1.5)], depth=12)
    assert whole_skips([ClipSkip(1), ClipSkip(2)], depth=12) == (1, 2)


@pytest.mark.slow
def test_two_loras_that_say_the_opposite_pull_against_each_other(tmp_path: Path) -> None:
    starter, library = open_model(None), Library.of_user((tmp_path,))
    whole = load_file(library.find("ogre", FileKind.LORA))
    for name, share in (("some", 0.1), ("against", -0.1)):
        save_file(
            {key: value * share if "lora_up" in key else value for key, value in whole.items()},
            tmp_path / f"{name}.safetensors",
            metadata={"ss_clip_skip": "2"},
        )
    request = Request(prompt="swamp, ogre", loras=(LoraRef(name="some"), LoraRef(name="against")), seed=5)
    advice = advise(starter, Wanted(request=request, skips=(1, 2)), library)
    said = advice.prompted
    assert said is not None
    pulls = {(pull.one, pull.other): pull for pull in said.pulls}
    loras = pulls["LoRA some", "LoRA against"]
    # the text encoder, in float32, answers nearly in proportion; the UNet less so, and in bfloat16
    assert max(loras.cosine) < -0.2
    assert loras.in_conditioning == pytest.approx((-1, -1), abs=0.1)
    assert pulls["swamp", "ogre"].in_conditioning is None
    assert pulls["LoRA some", "ogre"].in_conditioning is None
    told = list(lines(advice, family=Family.SD1, tool=Dialect.A1111))
    place = next(n for n, line in enumerate(told) if line.startswith("  LoRA some / LoRA against"))
    assert told[place + 1].startswith("    in the conditioning")


def test_an_embedding_counts_as_the_words_that_it_stands_for(model: Model, folder: Path, tmp_path: Path) -> None:
    (word,) = token_ids("frog")
    vector = model.reader.encoders[0].network.embeddings.token_embedding.weight[word]
    save_file({"emb_params": vector[None].clone()}, tmp_path / "mine.safetensors")
    library = Library((tmp_path, folder))

    def asked(prompt: str) -> Prompted:
        said = advise(model, Wanted(request=Request(prompt=prompt, seed=5), skips=(1, 2, 5)), library).prompted
        assert said is not None
        return said

    mine, frog = asked("swamp, mine, reeds"), asked("swamp, frog, reeds")
    assert [one.phrase for one in mine.phrases] == ["swamp", "mine", "reeds"]
    assert [one.reaction for one in mine.phrases] == [one.reaction for one in frog.phrases]
    assert [pull.cosine for pull in mine.pulls] == [pull.cosine for pull in frog.pulls]
    assert min(mine.phrases[1].reaction) > 0
