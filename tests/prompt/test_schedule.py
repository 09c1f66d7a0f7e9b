"""Edits and alternation, against the grammar of the module's docstring in an Earley parser."""

from functools import cache

import lark
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clipskip.encode import vectors_at
from clipskip.errors import PromptError, SpecError
from clipskip.prompt.edits import parse_schedule

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

GRAMMAR = r"""
    whole: (group | text | stray)*
    stray.-1: "[" -> open | "]" -> close | "(" -> round | ")" -> dnuor | ":" -> colon
    ?group: "(" prompt ")" -> strong | "(" prompt ":" prompt ")" -> strong2 | "[" prompt "]" -> weak | edit | turns
    edit: "[" prompt ":" prompt ":" when "]" | "[" prompt ":" when "]"
    turns: "[" prompt ("|" prompt)+ "]"
    prompt: (group | text)*
    text: TEXT
    when: WHEN
    TEXT: /(?:[^\\\[\]():|]|\\.)+/
    WHEN: /\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\s*/
"""
MARKS = {"open": "[", "close": "]", "round": "(", "dnuor": ")", "colon": ":"}
SHELLS = {"strong": ("(", "", ")"), "strong2": ("(", ":", ")"), "weak": ("[", "", "]")}

PIECES = st.sampled_from(["[", "]", "(", ")", ":", "|", "a", "b", " ", "\n", "\\", "3", ":4]", ":0.5]", "[a:", "[a|b]"])
MANY_PIECES = st.lists(PIECES, max_size=12).map("".join)
WELL_FORMED = st.recursive(
    st.sampled_from(["", "a", " b,", "\\[", "c\\:"]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.builds(
            "[{}:{}:{}]".format, inner, inner, st.sampled_from(["3", " 0.5 ", "-1", "1.0", "12", "+2", "1e1", ".25"])
        ),
        st.builds("[{}:{}]".format, inner, st.sampled_from(["3", "0.25"])),
        st.builds("[{}|{}]".format, inner, inner),
        st.builds("({})".format, inner),
        st.builds("({}:1.2)".format, inner),
    ),
    max_leaves=8,
)


@cache
def earley() -> lark.Lark:
    return lark.Lark(GRAMMAR, start="whole", parser="earley")


def edges(tree: lark.Tree, steps: int) -> set[int]:
    found = {steps}
    for edit in tree.find_data("edit"):
        number = str(edit.children[-1].children[0])
        when = int(min(float(number) * steps if "." in number else float(number), steps))
        found |= {when} if when >= 1 else set()
    return found | (set(range(1, steps + 1)) if any(tree.find_data("turns")) else set())


def written(tree: lark.Tree, step: int, steps: int) -> str:
    inside = [child for child in tree.children if isinstance(child, lark.Tree)]
    if tree.data == "text":
        return str(tree.children[0])
    if tree.data in MARKS:
        return MARKS[tree.data]
    if tree.data in SHELLS:
        first, between, last = SHELLS[tree.data]
        return first + between.join(written(child, step, steps) for child in inside) + last
    if tree.data == "turns":
        return written(inside[(step - 1) % len(inside)], step, steps)
    if tree.data == "edit":
        number = str(inside[-1].children[0])
        when = int(min(float(number) * steps if "." in number else float(number), steps))
        chosen = inside[:-2] if step <= when else inside[-2:-1]
        return "".join(written(child, step, steps) for child in chosen)
    return "".join(written(child, step, steps) for child in inside)


def by_grammar(text: str, steps: int) -> list[tuple[int, str]]:
    """The reading with the fewest stray brackets, or the text as it stands."""
    try:
        tree = earley().parse(text)
    except lark.exceptions.LarkError:
        return [(steps, text)]
    return [(end, written(tree, end, steps)) for end in sorted(edges(tree, steps))]


@patient
@given(st.one_of(MANY_PIECES, WELL_FORMED))
def test_the_one_pass_reader_agrees_with_the_grammar(text: str) -> None:
    assert parse_schedule(text, 10) == by_grammar(text, 10)


@pytest.mark.slow
@settings(patient, max_examples=1500)
@given(st.one_of(MANY_PIECES, WELL_FORMED))
def test_the_one_pass_reader_agrees_with_the_grammar_at_length(text: str) -> None:
    assert parse_schedule(text, 10) == by_grammar(text, 10)


@patient
@given(st.text(max_size=40), st.integers(1, 60))
def test_a_schedule_ends_at_the_last_step_and_rises(text: str, steps: int) -> None:
    ends = [end for end, _ in parse_schedule(text, steps)]
    assert ends[-1] == steps
    assert ends == sorted(set(ends))
    assert ends[0] >= 1


@patient
@given(st.text(alphabet="ab ,()日\n", max_size=30))
def test_text_without_edits_comes_back(text: str) -> None:
    assert parse_schedule(text, 20) == [(20, text)]


@pytest.mark.parametrize(
    "prompt", ["a|b [c:d:3]", "[a|b:0.5] [c:d:3]", "[c:d:3] \\", "[c:d:3] \\\nx", "[(a|b):3] [c:d:3]"]
)
def test_a_stray_bar_or_backslash_leaves_the_whole_prompt_as_it_stands(prompt: str) -> None:
    assert parse_schedule(prompt, 10) == [(10, prompt)]


def test_a_bracket_that_makes_no_edit_leaves_its_neighbours_theirs() -> None:
    assert parse_schedule("[a:b:c:3] [d:e:5]", 10) == [(5, "[a:b:c:3] d"), (10, "[a:b:c:3] e")]


def test_surplus_brackets_behind_an_edit_do_not_undo_it() -> None:
    assert parse_schedule("[a:b:3]))", 10) == [(3, "a))"), (10, "b))")]


def test_an_edit_at_step_3_keeps_its_first_text_for_four_calls() -> None:
    schedule = parse_schedule("[a:b:3]", 10)
    assert "".join(vectors_at(schedule, call) for call in range(10)) == "aaaabbbbbb"


def test_a_call_after_the_last_step_gets_the_last_text() -> None:
    assert vectors_at([(3, "a"), (10, "b")], 40) == "b"


def test_a_number_beyond_float64_is_after_the_last_step() -> None:
    assert parse_schedule("[a:b:1e999]", 10) == [(10, "a")]
    assert parse_schedule("[a:b:-1e999]", 10) == [(10, "b")]


@pytest.mark.parametrize("steps", [0, -1, 10**9, True])
def test_steps_out_of_range_are_an_error(steps: int) -> None:
    with pytest.raises(SpecError, match="use 1 to 10000"):
        parse_schedule("a", steps)


def test_an_edit_too_long_to_write_out_is_an_error() -> None:
    with pytest.raises(PromptError, match="too long for its edits"):
        parse_schedule("[a|b]" * 20_000, 300)
