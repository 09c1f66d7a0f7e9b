from clipskip.advise.prompted import LoraUptake, PhraseReaction, Prompted
from clipskip.advise.verdict import Answer, decide


def sure_of(skip: int, chance: float = 0.9) -> dict[int, float]:
    return {n: chance if n == skip else (1 - chance) / 11 for n in range(1, 13)}


EVEN = dict.fromkeys(range(1, 13), 1 / 12)


def measured(
    kept: tuple[float, ...] = (0.9, 1.0, 0.6),
    *,
    size: tuple[float, ...] = (1.1, 1.0, 1.2),
    uptake: tuple[float, ...] | None = None,
    ignored: tuple[str, ...] = (),
) -> Prompted:
    lora = uptake and LoraUptake(
        name="ogre", uptake=uptake, text_shift=uptake, by_text=uptake, by_unet=uptake, whole=uptake, text_layers=(), text_dead_from=None
    )  # fmt: skip
    return Prompted(
        skips=(1, 2, 3),
        reference=2,
        guidance_kept=kept,
        guidance_size=size,
        conditioning_distance=kept,
        contrast=size,
        detail=size,
        change=kept,
        broken_from=None,
        phrases=tuple(PhraseReaction(phrase=one, reaction=(0.0, 0.0, 0.0), ignored=True) for one in ignored),
        loras=(lora,) if lora else (),
        pulls=(),
    )


def test_a_model_whose_training_is_known_is_used_as_it_was_trained() -> None:
    verdict = decide(sure_of(2), {}, None, default=1)
    assert (verdict.answer, verdict.skip, verdict.sure) == (Answer.VALUE, 2, 0.9)


def test_nothing_known_is_said_so_and_begins_at_the_family_s_value() -> None:
    verdict = decide(EVEN, {}, None, default=1)
    assert (verdict.answer, verdict.skip) == (Answer.NOT_KNOWN, 1)
    assert "--images" in verdict.text


def test_guidance_that_is_the_same_everywhere_makes_no_difference() -> None:
    verdict = decide(sure_of(2), {}, measured((0.99, 1.0, 0.98), size=(1.0, 1.0, 1.01)), default=1)
    assert (verdict.answer, verdict.skip) == (Answer.NO_DIFFERENCE, 2)


def test_a_lora_of_another_clip_skip_gets_the_value_where_the_least_is_lost() -> None:
    found = measured((0.7, 1.0, 0.9), uptake=(0.5, 0.6, 1.0))
    verdict = decide(sure_of(2), {"ogre": sure_of(3)}, found, default=1)
    assert (verdict.answer, verdict.skip) == (Answer.VALUE, 3)
    assert "ogre at 3" in verdict.text
    assert "90%" in verdict.text


def test_a_lora_that_agrees_with_the_model_needs_no_compromise() -> None:
    verdict = decide(sure_of(2), {"ogre": sure_of(2, 0.8)}, measured(uptake=(1.0, 1.0, 1.0)), default=1)
    assert (verdict.skip, verdict.sure) == (2, 0.8)


def test_only_what_is_known_is_said_to_be_trained_at_it() -> None:
    found = measured(uptake=(1.0, 0.0, 0.0))
    verdict = decide(sure_of(2), {"ogre": EVEN}, found, default=1)
    assert (verdict.skip, verdict.sure) == (2, 0.9)
    assert verdict.text == "The model was most probably trained at it; nothing tells what ogre was trained at"
    verdict = decide(EVEN, {"ogre": sure_of(2, 0.8), "gnome": EVEN}, found, default=1)
    assert (verdict.skip, verdict.sure) == (2, 0.8)
    assert (
        verdict.text == "ogre was most probably trained at it; nothing tells what the model and gnome were trained at"
    )
    both = decide(sure_of(2), {"ogre": sure_of(2)}, found, default=1)
    assert both.text == "The model and ogre were most probably trained at it"


def test_a_phrase_that_nothing_reacts_to_is_named() -> None:
    assert "'xyzzy'" in decide(sure_of(2), {}, measured(ignored=("xyzzy",)), default=1).text
