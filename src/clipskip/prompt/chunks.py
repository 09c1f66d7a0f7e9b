"""Weighted text to chunks of 75 tokens, with embeddings in their places.

A1111 1.8.0 modules/sd_hijack_clip.py:84-177 and modules/textual_inversion/textual_inversion.py:129-150, 241-252.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from clipskip.errors import PromptError
from clipskip.prompt.brackets import BREAK
from clipskip.prompt.tokens import COMMA, END, START, token_ids

CHUNK = 75
"""Tokens that the encoder reads at a time, besides start and end."""
MAX_CHUNKS = 100
PLACEHOLDER = 0
"""The token that stands in an embedding's places."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """The places of an embedding's vectors."""

    name: str
    position: int
    """The first token replaced, in the sequence of 77 that starts with the start token."""
    vectors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Up to 75 tokens, which the encoder reads at once."""

    tokens: tuple[int, ...] = ()
    """Without start, end and padding."""
    weights: tuple[float, ...] = ()
    slots: tuple[Slot, ...] = ()

    def ids(self, *, pad: int = END) -> tuple[int, ...]:
        """Return the 77 ids, with `pad` after the first end token: the end token (SD 1.x), or 0 (SD 2.x, SDXL's
        bigG)."""
        ids = (START, *self.tokens, *[END] * (CHUNK + 1 - len(self.tokens)))
        first_end = ids.index(END) + 1
        return ids if pad == END else (*ids[:first_end], *[pad] * (len(ids) - first_end))

    @property
    def multipliers(self) -> tuple[float, ...]:
        """The weights of the 77 ids: 1 for start, end and padding."""
        return (1.0, *self.weights, *[1.0] * (CHUNK + 1 - len(self.weights)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunked:
    """A text in chunks; an empty text has one empty chunk."""

    chunks: tuple[Chunk, ...]
    count: int
    """Number of tokens as A1111 counts them: 75 for each closed chunk, plus those of the last."""


@dataclass(frozen=True, slots=True)
class EmbeddingNames:
    """Embeddings by the tokens of their names, longest first, under the first token."""

    by_first: Mapping[int, Sequence[tuple[tuple[int, ...], Slot]]]

    def match(self, tokens: Sequence[int], at: int) -> tuple[Slot, int] | None:
        """Return the embedding named at this place and how many tokens its name takes, or None."""
        known = self.by_first.get(tokens[at], ())
        matches = [(ids, slot) for ids, slot in known if tuple(tokens[at : at + len(ids)]) == ids]
        if not matches:
            return None
        ids, slot = matches[0]
        same = [candidate.name for name_ids, candidate in matches if name_ids == ids]
        if len(same) > 1:
            raise PromptError(
                f"the prompt names the embeddings {same[0]!r} and {same[1]!r} with the same tokens; rename one of them",
                field="prompt",
            )
        if not 1 <= slot.vectors <= CHUNK:
            raise PromptError(
                f"the embedding {slot.name!r} has {slot.vectors} vectors; use one of 1 to {CHUNK}, which fit into a chunk",
                field="prompt",
            )
        return slot, len(ids)


def name_embeddings(vectors: Mapping[str, int]) -> EmbeddingNames:
    """Index the embeddings, given how many vectors each has. A name without tokens cannot be called."""
    by_first: dict[int, list[tuple[tuple[int, ...], Slot]]] = {}
    for name, count in vectors.items():
        if ids := tuple(token_ids(name)):
            by_first.setdefault(ids[0], []).append((ids, Slot(name=name, position=0, vectors=count)))
    return EmbeddingNames({first: sorted(known, key=lambda entry: -len(entry[0])) for first, known in by_first.items()})


def chunk_segments(
    segments: Iterable[tuple[str, float]], *, embeddings: EmbeddingNames, comma_backtrack: int = 20
) -> Chunked:
    """Split weighted text, as `parse_attention` gives it, into chunks.

    A comma within the last `comma_backtrack` tokens of a full chunk moves what follows it to the next chunk; 0 turns
    this off.
    """
    filler = _Filler(comma_backtrack)
    for text, weight in segments:
        if (text, weight) == BREAK:
            filler.close()
            continue
        tokens = token_ids(text)
        at = 0
        while at < len(tokens):
            filler.make_room(comma=tokens[at] == COMMA)
            named = embeddings.match(tokens, at)
            if named is None:
                filler.add(tokens[at], weight)
                at += 1
            else:
                filler.add_slot(named[0], weight)
                at += named[1]
    return filler.finish()


class _Filler:
    """Chunks while they are being filled."""

    def __init__(self, comma_backtrack: int) -> None:
        self.backtrack = comma_backtrack
        self.closed: list[Chunk] = []
        self.count = 0
        self.after_comma = 0
        """Index behind the chunk's last comma; 0 for none."""
        self.tokens: list[int] = []
        self.weights: list[float] = []
        self.slots: list[Slot] = []

    def make_room(self, *, comma: bool) -> None:
        """Start a new chunk when this one is full; text after a late comma moves to it, unless a comma comes next."""
        if len(self.tokens) < CHUNK:
            return
        late = self.after_comma and CHUNK - self.after_comma + 1 <= self.backtrack
        self.close(keep=self.after_comma if late and not comma else CHUNK)

    def close(self, *, keep: int = CHUNK) -> None:
        """Close the chunk after `keep` tokens; the others, with their embeddings, begin the next."""
        self.count += CHUNK
        self._store(keep)
        self.tokens, self.weights = self.tokens[keep:], self.weights[keep:]
        moved = [slot for slot in self.slots if slot.position > keep]
        self.slots = [Slot(name=s.name, position=s.position - keep, vectors=s.vectors) for s in moved]
        self.after_comma = 0

    def finish(self) -> Chunked:
        """Return all chunks, the last as far as it is filled."""
        if self.tokens or not self.closed:
            self.count += len(self.tokens)
            self._store(CHUNK)
        return Chunked(chunks=tuple(self.closed), count=self.count)

    def add(self, token: int, weight: float) -> None:
        self.tokens.append(token)
        self.weights.append(weight)
        if token == COMMA:
            self.after_comma = len(self.tokens)

    def add_slot(self, slot: Slot, weight: float) -> None:
        if len(self.tokens) + slot.vectors > CHUNK:
            self.close()
        self.slots.append(Slot(name=slot.name, position=len(self.tokens) + 1, vectors=slot.vectors))
        self.tokens += [PLACEHOLDER] * slot.vectors
        self.weights += [weight] * slot.vectors

    def _store(self, keep: int) -> None:
        if len(self.closed) == MAX_CHUNKS:
            raise PromptError(
                f"the prompt has more than {MAX_CHUNKS} chunks of {CHUNK} tokens; shorten it, or use fewer BREAKs",
                field="prompt",
            )
        kept = tuple(slot for slot in self.slots if slot.position <= keep)
        self.closed.append(Chunk(tokens=tuple(self.tokens[:keep]), weights=tuple(self.weights[:keep]), slots=kept))
