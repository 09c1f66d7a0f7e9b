"""Tags: what a prompt asks for beside its words."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clipskip.errors import PromptError
from clipskip.prompt import extract_tags
from clipskip.prompt.tags import lora_refs
from clipskip.spec import LoraRef

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def refs(prompt: str) -> tuple[LoraRef, ...]:
    return lora_refs(extract_tags(prompt)[1])


def test_named_strengths_go_before_those_by_place() -> None:
    assert refs("<lora:a:0.1:0.2:te=0.5>") == (LoraRef(name="a", text_encoder=0.5, unet=0.2),)
    assert refs("<lora:a:te=0.5>") == (LoraRef(name="a", text_encoder=0.5, unet=0.5),)
    assert refs("<lora:a:unet=0.5:te=0.25>") == (LoraRef(name="a", text_encoder=0.25, unet=0.5),)


def test_a_lora_named_twice_is_applied_twice_at_its_last_strengths() -> None:
    last = LoraRef(name="a", text_encoder=0.5, unet=0.5)
    assert refs("<lora:a:1><lora:b:0.2><lora:a:0.5>") == (last, LoraRef(name="b", text_encoder=0.2, unet=0.2), last)


def test_kinds_follow_one_another_as_they_first_appear() -> None:
    assert [one.name for one in refs("<lora:a:1><lyco:b:1><lora:c:1>")] == ["a", "c", "b"]


@pytest.mark.parametrize(
    ("tag", "says"),
    [
        ("<lora:x:nan>", "not finite"),
        ("<lora:x:1e309>", "not finite"),
        ("<lora:x:1:-inf>", "not finite"),
        ("<lora:x:abc>", "not a number"),
        ("<lora:x:>", "not a number"),
        ("<lora:x:te=strong>", "not a number"),
        ("<lora:te=0.5>", "names no LoRA"),
        ("<lora: :0.5>", "names no LoRA"),
        ("<lora:x:1:1:8.5>", "not a whole number"),
        ("<lora:x:1:1:32>", "rank 32, which is not supported"),
        ("<lora:x:1:lbw=OUTALL>", "'lbw', which is unknown"),
        ("<hypernet:agm:1.1>", "unknown kind"),
        ("<LORA:x:1>", "unknown kind"),
    ],
)
def test_a_tag_that_cannot_be_honoured_is_an_error_that_shows_it(tag: str, says: str) -> None:
    with pytest.raises(PromptError, match=says) as caught:
        refs(f"a fox {tag}")
    assert tag in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_long_tag_is_shown_on_one_short_line() -> None:
    with pytest.raises(PromptError) as caught:
        refs("<lora:x\ny:" + "9" * 1000 + "z>")
    assert len(str(caught.value)) < 250
    assert "\n" not in str(caught.value)


def test_more_than_100_tags_are_an_error() -> None:
    with pytest.raises(PromptError, match="200 tags"):
        refs("<lora:a:1>" * 200)


def test_what_only_looks_like_a_tag_stays() -> None:
    prompt = "a < b:c> <:x> <lora> <lora:> <a b:c> <lora:x"
    assert extract_tags(prompt) == (prompt, ())


def test_a_tag_may_hold_an_open_bracket() -> None:
    text, (tag,) = extract_tags("x<a:<b:c>y")
    assert (text, tag.kind, tag.items) == ("xy", "a", ("<b", "c"))


@patient
@given(st.lists(st.tuples(st.text(alphabet="ab ,", max_size=5), st.floats(-5, 5)), max_size=5))
def test_loras_come_back_in_order_and_the_words_stay(parts: list[tuple[str, float]]) -> None:
    prompt = "".join(f"{words}<lora:n{at}:{strength!r}>" for at, (words, strength) in enumerate(parts))
    text, tags = extract_tags(prompt)
    assert text == "".join(words for words, _ in parts)
    assert [(one.name, one.unet) for one in lora_refs(tags)] == [(f"n{at}", s) for at, (_, s) in enumerate(parts)]
