"""Chunks of 75 tokens: nothing is lost, embeddings move whole."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clipskip.errors import PromptError
from clipskip.prompt import CHUNK, END, START, Chunk, token_ids
from clipskip.prompt.brackets import parse_attention
from clipskip.prompt.chunks import Chunked, Slot, chunk_segments, name_embeddings

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

CAT, COMMA = 2368, 267


def chunked(text: str, embeddings: dict[str, int] | None = None, *, backtrack: int = 20) -> Chunked:
    names = name_embeddings(embeddings or {})
    return chunk_segments(parse_attention(text), embeddings=names, comma_backtrack=backtrack)


@patient
@given(
    st.lists(st.sampled_from(["cat ", "cat, ", ",", "(dog:1.5) ", "[fox], "]), max_size=200).map("".join),
    st.integers(0, 74),
)
def test_chunks_hold_every_token_once_and_in_order(text: str, backtrack: int) -> None:
    segments = parse_attention(text)
    found = chunk_segments(segments, embeddings=name_embeddings({}), comma_backtrack=backtrack)
    wanted = [(token, weight) for words, weight in segments for token in token_ids(words)]
    pairs = [pair for one in found.chunks for pair in zip(one.tokens, one.weights, strict=True)]
    assert pairs == wanted
    assert all(len(one.tokens) <= CHUNK for one in found.chunks)
    assert found.count == CHUNK * (len(found.chunks) - 1) + len(found.chunks[-1].tokens)


@patient
@given(st.lists(st.sampled_from(["cat ", "cat, ", "ogre ", "ogre, "]), max_size=150).map("".join), st.integers(1, 75))
def test_every_embedding_lies_whole_on_its_placeholders(text: str, vectors: int) -> None:
    found = chunked(text, {"ogre": vectors})
    slots = [slot for one in found.chunks for slot in one.slots]
    assert len(slots) == text.count("ogre")
    for one in found.chunks:
        under = [one.ids()[slot.position : slot.position + slot.vectors] for slot in one.slots]
        assert all(ids == (0,) * vectors for ids in under)
        assert one.tokens.count(0) == vectors * len(one.slots)


def test_a_late_comma_takes_what_follows_to_the_next_chunk() -> None:
    assert [len(one.tokens) for one in chunked("cat " * 60 + "," + "cat " * 20).chunks] == [61, 20]
    assert [len(one.tokens) for one in chunked("cat " * 60 + "," + "cat " * 20, backtrack=14).chunks] == [75, 6]
    assert [len(one.tokens) for one in chunked("cat " * 60 + "," + "cat " * 20, backtrack=15).chunks] == [61, 20]
    assert [len(one.tokens) for one in chunked("cat " * 60 + "," + "cat " * 20, backtrack=0).chunks] == [75, 6]


def test_a_comma_that_finds_the_chunk_full_opens_the_next() -> None:
    first, second = chunked("cat " * 70 + "," + "cat " * 4 + ", cat").chunks
    assert (len(first.tokens), second.tokens) == (75, (COMMA, CAT))


def test_an_embedding_moved_over_the_edge_keeps_its_vectors() -> None:
    # A1111 moves the placeholders and leaves the vectors behind, in the padding of the old chunk.
    first, second = chunked("cat " * 62 + ", ogre" + " cat" * 10, {"ogre": 4}).chunks
    assert (len(first.tokens), first.slots) == (63, ())
    assert second.slots == (Slot(name="ogre", position=1, vectors=4),)
    assert second.tokens == (0,) * 4 + (CAT,) * 10


def test_an_embedding_that_does_not_fit_opens_a_chunk() -> None:
    first, second = chunked("cat " * 73 + "ogre cat", {"ogre": 4}).chunks
    assert (len(first.tokens), len(second.tokens)) == (73, 5)
    assert second.slots[0].position == 1


def test_the_longest_name_wins() -> None:
    slots = chunked("bad hands, bad", {"bad": 1, "bad hands": 3}).chunks[0].slots
    assert [(slot.name, slot.position) for slot in slots] == [("bad hands", 1), ("bad", 5)]


def test_names_are_matched_by_tokens_so_case_does_not_matter() -> None:
    assert chunked("a (EasyNegative:1.2)", {"easynegative": 2}).chunks[0] == Chunk(
        tokens=(320, 0, 0), weights=(1.0, 1.2, 1.2), slots=(Slot(name="easynegative", position=2, vectors=2),)
    )


def test_two_embeddings_that_one_word_calls_are_an_error_when_it_is_used() -> None:
    assert chunked("cat", {"Ogre": 1, "ogre": 2}).chunks[0].slots == ()
    with pytest.raises(PromptError, match="'Ogre' and 'ogre'"):
        chunked("an ogre", {"Ogre": 1, "ogre": 2})


def test_an_embedding_larger_than_a_chunk_is_an_error() -> None:
    with pytest.raises(PromptError, match="'ogre' has 76 vectors"):
        chunked("ogre", {"ogre": 76})


def test_a_name_without_tokens_is_never_called() -> None:
    assert chunked("a cat", {" ": 3, "": 2}).chunks[0].slots == ()


def test_more_than_100_chunks_are_an_error() -> None:
    assert len(chunked("cat " * 7500).chunks) == 100
    for text in ("cat " * 7501, "BREAK " * 1000):
        with pytest.raises(PromptError, match="more than 100 chunks"):
            chunked(text)


def test_padding_is_the_end_token_or_nothing_after_the_first_end() -> None:
    chunk = Chunk(tokens=(320, CAT), weights=(1.0, 1.3))
    assert chunk.ids() == (START, 320, CAT, *[END] * 74)
    assert chunk.ids(pad=0) == (START, 320, CAT, END, *[0] * 73)
    assert chunk.multipliers == (1.0, 1.0, 1.3, *[1.0] * 74)
    assert Chunk(tokens=(CAT, END, CAT), weights=(1.0,) * 3).ids(pad=0) == (START, CAT, END, *[0] * 74)
    full = Chunk(tokens=(CAT,) * 75, weights=(1.0,) * 75)
    assert full.ids() == full.ids(pad=0) == (START, *[CAT] * 75, END)
