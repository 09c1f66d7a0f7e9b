from dataclasses import replace

import pytest

from clipskip.advise.files import ADVISED, STATED, advised_evidence, combined, contradictions, file_evidence
from clipskip.spec import Family
from clipskip.weights.hints import SkipHint


def test_a_lora_s_metadata_says_what_it_was_trained_at() -> None:
    (found,) = file_evidence("ogre", hashes=(), metadata={"ss_clip_skip": "2"}, is_lora=True)
    assert (found.skip, found.weight) == (2, STATED)
    assert 'ss_clip_skip = "2"' in found.source


def test_a_published_model_is_known_by_its_hash_whatever_its_name() -> None:
    (found,) = file_evidence("mine", hashes=("89d59c3dde4c56c6d5c41da34cc55ce4",), metadata={}, is_lora=False)
    assert found.skip == 2
    assert "NovelAI" in found.source


@pytest.mark.parametrize(
    ("name", "skip"),
    [("anything-v4.0-pruned", 2), ("AbyssOrangeMix2_sfw", 2), ("v1-5-pruned-emaonly", 1), ("mine", None)],
)
def test_a_name_says_what_its_kind_was_trained_at(name: str, skip: int | None) -> None:
    found = file_evidence(name, hashes=(), metadata={}, is_lora=False)
    assert [one.skip for one in found] == ([] if skip is None else [skip])


def test_a_lora_s_base_counts_less_than_its_own_word_and_contradicts_it() -> None:
    told = {"ss_clip_skip": "1", "ss_sd_model_name": "animefull-final-pruned.ckpt"}
    found = file_evidence("hers", hashes=(), metadata=told, is_lora=True)
    ((one, other),) = contradictions(found)
    assert (one.skip, other.skip) == (1, 2)
    assert one.weight > other.weight
    assert max(combined(found).items(), key=lambda pair: pair[1])[0] == 1


def test_independent_sayings_multiply() -> None:
    twice = file_evidence("a", hashes=(), metadata={"ss_clip_skip": "2"}, is_lora=True) * 2
    # Bayes with an even prior: 0.9 * 0.9 against eleven times (0.1 / 11) ** 2
    assert combined(twice)[2] == pytest.approx(0.81 / (0.81 + 11 * (0.1 / 11) ** 2))


def test_without_evidence_every_layer_is_as_probable() -> None:
    assert set(combined(()).values()) == {1 / 12}


def test_a_makers_advice_counts_less_than_what_a_file_states() -> None:
    (found,) = advised_evidence("ogre", [SkipHint(clip_skip=2, source="its description on Civitai")])
    assert (found.skip, found.weight) == (2, ADVISED) and ADVISED < STATED


def test_example_pictures_count_by_their_majority() -> None:
    hints = [SkipHint(clip_skip=1, source="pictures", pictures=1), SkipHint(clip_skip=2, source="pictures", pictures=4)]
    (found,) = advised_evidence("ogre", hints)
    assert found.skip == 2 and found.weight == 0.5 + 0.04 * 3 and "4 of 5" in found.source
    assert advised_evidence("ogre", [replace(hint, pictures=2) for hint in hints]) == (), "a draw says nothing"


@pytest.mark.parametrize(
    ("family", "metadata", "skips"),
    [
        (Family.SDXL, {"ss_clip_skip": "1"}, [2]),
        (Family.SDXL, {}, [2]),
        (Family.SD2, {}, [2]),
        (Family.SD2, {"ss_clip_skip": "2"}, [3]),
        (Family.SD1, {"ss_clip_skip": "1"}, [1]),
    ],
)
def test_a_loras_clip_skip_is_that_of_its_family(family: Family, metadata: dict[str, str], skips: list[int]) -> None:
    found = file_evidence("ogre", hashes=(), metadata=metadata, is_lora=True, family=family)
    assert [one.skip for one in found] == skips
