"""The prompt language once more, written down as plainly as its rules are told, and random prompts read by both."""

import re

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clipskip.errors import PromptError
from clipskip.prompt import BREAK, CHUNK, extract_tags, token_ids
from clipskip.prompt.brackets import parse_attention
from clipskip.prompt.chunks import chunk_segments, name_embeddings
from clipskip.prompt.composition import parse_composition

patient = settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])

PIECES = st.sampled_from(
    ["(", ")", "[", "]", ":", "\\", "1.2", ".5", "1.", "-1", "+2", ":1.2)", ": 1.3 )", ":1.2.3)", " ", "\n", "\x1c", "a", "b,",
     "BREAK", " BREAK ", "BREAK_", "AND", " AND ", "日", "٣", "\u3000", "é", "<", ">", "<lora:x:1>", "lora:", "=", "_"]
)  # fmt: skip
PROMPTS = st.lists(PIECES, max_size=14).map("".join)

Segments = list[tuple[str, float]]


def weight_at(text: str, at: int) -> tuple[str, int] | None:
    """The number of a `: number )` that starts here, and where it ends."""
    found = re.compile(r"\s*([+-]?[.\d]+)\s*\)").match(text, at + 1) if text[at] == ":" else None
    return (found[1], found.end()) if found else None


def plain_attention(text: str) -> Segments:
    """Letter by letter; each open bracket remembers how many letters came before it."""
    letters: list[list[object]] = []
    rounds: list[int] = []
    squares: list[int] = []

    def weigh(start: int, factor: float) -> None:
        for letter in letters[start:]:
            letter[1] *= factor  # type: ignore[operator]

    at = 0
    while at < len(text):
        mark, number = text[at], weight_at(text, at)
        if mark == "\\":
            escaped = text[at + 1 : at + 2] in tuple("()[]\\")
            at += escaped
            letters.append([text[at] if escaped else "", 1.0])
        elif mark in "([":
            (rounds if mark == "(" else squares).append(len(letters))
        elif number and rounds:
            weigh(rounds.pop(), float(number[0]))
            at = number[1] - 1
        elif mark == ")" and rounds:
            weigh(rounds.pop(), 1.1)
        elif mark == "]" and squares:
            weigh(squares.pop(), 1 / 1.1)
        else:
            letters.append([mark, 1.0])
        at += 1
    for start in rounds:
        weigh(start, 1.1)
    for start in squares:
        weigh(start, 1 / 1.1)
    merged: Segments = []
    for letter, weight in letters:
        if merged and merged[-1][1] == weight:
            merged[-1] = (merged[-1][0] + str(letter), merged[-1][1])
        else:
            merged.append((str(letter), float(weight)))  # type: ignore[arg-type]
    return merged or [("", 1.0)]


@patient
@given(PROMPTS.filter(lambda text: "BREAK" not in text))
def test_weights_are_what_the_rules_say(text: str) -> None:
    try:
        expected: Segments | None = plain_attention(text)
    except ValueError:
        expected = None  # a number such as 1.2.3
    try:
        assert parse_attention(text) == expected
    except PromptError:
        assert expected is None


@patient
@given(PROMPTS.filter(lambda text: not set("()[]:\\") & set(text)))
def test_break_cuts_where_it_is_a_word(text: str) -> None:
    words = re.split(r"\s*\bBREAK\b\s*", text)
    expected = [segment for word in words for segment in (BREAK, (word, 1.0))][1:]
    assert parse_attention(text) == expected


@patient
@given(PROMPTS)
def test_parts_and_their_weights_are_what_the_rules_say(text: str) -> None:
    expected: Segments = []
    for part in re.split(r"\bAND\b", text):
        trimmed, weight = part.rstrip(), 1.0
        ends = [at for at, mark in enumerate(trimmed) if mark == ":"]
        number = trimmed[ends[-1] + 1 :].strip() if ends else ""
        digits = number[1:] if number[:1] in tuple("+-") else number
        if digits.count(".") <= 1 and digits.replace(".", "").isdecimal() and re.fullmatch(r"\d+\.?|\d*\.\d+", digits):
            trimmed, weight = trimmed[: ends[-1]].rstrip(), float(number)
        expected.append((trimmed, weight))
    assert parse_composition(text) == expected


@patient
@given(PROMPTS)
def test_tags_are_what_the_rules_say(text: str) -> None:
    found = [(kind, items.split(":")) for kind, items in re.findall(r"<(\w+):([^>]+)>", text)]
    words, tags = extract_tags(text)
    assert words == re.sub(r"<\w+:[^>]+>", "", text)
    assert [(tag.kind, list(tag.items)) for tag in tags] == found


def plain_chunks(segments: Segments, vectors: dict[str, int], backtrack: int) -> list[list[tuple[object, float]]]:
    """Each chunk's places: a token, or an embedding's name, with its weight."""
    known = sorted(((token_ids(name), name) for name in vectors), key=lambda one: -len(one[0]))
    chunks: list[list[tuple[object, float]]] = [[]]
    comma: int | None = None
    closed = True
    for text, weight in segments:
        if (text, weight) == BREAK:
            chunks.append([])
            comma, closed = None, True
            continue
        tokens = token_ids(text)
        while tokens:
            closed = False
            chunk = chunks[-1]
            if tokens[0] != 267 and len(chunk) == CHUNK and comma is not None and CHUNK - comma <= backtrack:
                chunks[-1:] = [chunk[: comma + 1], chunk[comma + 1 :]]
                comma = None
            elif len(chunk) == CHUNK:
                chunks.append([])
                comma = None
            elif tokens[0] == 267:
                comma = len(chunk)
            name = next((name for ids, name in known if tokens[: len(ids)] == ids), None)
            if name is None:
                chunks[-1].append((tokens.pop(0), weight))
                continue
            if len(chunks[-1]) + vectors[name] > CHUNK:
                chunks.append([])
                comma = None
            chunks[-1] += [(name, weight)] * vectors[name]
            del tokens[: len(token_ids(name))]
    return chunks[:-1] if closed and len(chunks) > 1 else chunks


@patient
@given(
    st.lists(
        st.sampled_from(["cat " * 7, "cat ", "cat, ", ",", "(dog:1.5) ", "[fox], ", " BREAK ", "ogre ", "bad hands, "]),
        max_size=60,
    ).map("".join),
    st.sampled_from([0, 5, 20, 74]),
    st.sampled_from([{}, {"ogre": 1}, {"ogre": 30, "bad hands": 3, "bad": 2}]),
)
def test_chunks_are_what_the_rules_say(text: str, backtrack: int, vectors: dict[str, int]) -> None:
    segments = parse_attention(text)
    found = chunk_segments(segments, embeddings=name_embeddings(vectors), comma_backtrack=backtrack)
    places = []
    for chunk in found.chunks:
        names = {slot.position - 1 + at: slot.name for slot in chunk.slots for at in range(slot.vectors)}
        tokens = [names.get(at, token) for at, token in enumerate(chunk.tokens)]
        places.append(list(zip(tokens, chunk.weights, strict=True)))
    assert places == plain_chunks(segments, vectors, backtrack)
