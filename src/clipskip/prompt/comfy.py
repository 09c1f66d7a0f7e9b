"""ComfyUI's prompts: brackets, embeddings by name and chunks; no comments, tags, edits or AND.

Rules as in ComfyUI 0.3 (comfy/sd1_clip.py token_weights, SDTokenizer.tokenize_with_weights).
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from clipskip.errors import PromptError
from clipskip.prompt.chunks import CHUNK, MAX_CHUNKS, PLACEHOLDER, Chunk, Chunked, Slot
from clipskip.prompt.limits import check_text
from clipskip.prompt.tokens import token_ids

ROUND = 1.1
WHOLE = 8
"""A piece of text of at least this many tokens is cut where a chunk ends; shorter ones move to the next chunk whole."""
MOST_READ = 5_000_000
"""The most characters read in all: each level of brackets reads its content again."""

_BRACKET = re.compile(r"[()]")
_CALL = re.compile(r"[ \n](?=embedding:)")
_IDENTIFIER = "embedding:"
_CLOSE, _OPEN = "\0\1", "\0\2"
"""These replace escaped brackets while the others are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A piece of text or an embedding, kept in one chunk where it fits."""

    tokens: tuple[int, ...]
    weight: float
    embedding: str = ""
    """The embedding's name, where the piece is an embedding's vectors."""


def read_comfy(text: str, embeddings: Mapping[str, int]) -> Chunked:
    """Return the chunks of a prompt, given how many vectors each embedding has; unknown embeddings are left out."""
    check_text(text)
    names = {_embedding_key(name): name for name in embeddings}
    return _fill(
        [piece for words, weight in segments(text) for piece in _embedding_pieces(words, weight, names, embeddings)]
    )


def missing_embeddings(text: str, known: Iterable[str]) -> tuple[str, ...]:
    """Return the embeddings that a prompt calls and that do not exist."""
    names = {_embedding_key(name): name for name in known}
    calls = (part for words, _ in segments(text) for part in _CALL.split(words) if part.startswith(_IDENTIFIER))
    written = (call.removeprefix(_IDENTIFIER) for call in calls if not _find(call, names)[0])
    return tuple(dict.fromkeys(name.split()[0].strip(",") for name in written))


def segments(text: str) -> list[tuple[str, float]]:
    r"""Split the text into pieces with their weights: (a) multiplies by 1.1, (a:1.3) sets 1.3, \( is a bracket."""
    pieces: list[tuple[str, float]] = []
    waiting = [(text.replace("\\)", _CLOSE).replace("\\(", _OPEN), 1.0, True)]
    read = 0
    while waiting:
        words, weight, opened = waiting.pop()
        if not opened:
            pieces.append((words.replace(_CLOSE, ")").replace(_OPEN, "("), weight))
            continue
        read += len(words)
        if read > MOST_READ:
            raise PromptError(
                f"the prompt nests brackets around too much text: reading it takes more than {MOST_READ:,} characters; "
                "nest fewer brackets",
                field="prompt",
            )
        waiting += reversed([_item(item, weight) for item in _items(words)])
    return pieces


def _items(words: str) -> Iterator[str]:
    """Yield each outermost bracket with its content, and the text between."""
    start = level = 0
    for match in _BRACKET.finditer(words):
        if match[0] == "(":
            if level == 0 and match.start() > start:
                yield words[start : match.start()]
                start = match.start()
            level += 1
        else:
            level -= 1
            if level == 0:
                yield words[start : match.end()]
                start = match.end()
    if start < len(words):
        yield words[start:]


def _item(item: str, weight: float) -> tuple[str, float, bool]:
    """Return an item without its brackets, its weight, and whether it is to be read again."""
    if len(item) < 2 or not (item[0] == "(" and item[-1] == ")"):
        return item, weight, False
    inner, colon, number = item[1:-1].rpartition(":")
    if colon and inner:
        try:
            return inner, _checked_weight(float(number), number), True
        except ValueError:
            pass
    return item[1:-1], _checked_weight(weight * ROUND, "the product of brackets"), True


def _checked_weight(weight: float, written: str) -> float:
    if not math.isfinite(weight):
        raise PromptError(
            f"the prompt's weight {written[:20]!r} is not a finite number; write one such as 1.2", field="prompt"
        )
    return weight


def _embedding_pieces(words: str, weight: float, names: Mapping[str, str], known: Mapping[str, int]) -> Iterator[Piece]:
    """Yield the embeddings in some text and the text between them."""
    for part in _CALL.split(words):
        text = part
        if part.startswith(_IDENTIFIER):
            name, text = _find(part, names)
            if name:
                yield Piece(tokens=(PLACEHOLDER,) * known[name], weight=weight, embedding=name)
        if text:
            yield Piece(tokens=tuple(token_ids(text)), weight=weight)


def _find(call: str, names: Mapping[str, str]) -> tuple[str, str]:
    """Return the called embedding's name, or "", and the text behind it; commas around the name are text."""
    written, *words = call.removeprefix(_IDENTIFIER).split() or [""]
    if not written:
        raise PromptError("the prompt says 'embedding:' without a name; write it as embedding:name", field="prompt")
    behind = " ".join(words)
    if name := names.get(_embedding_key(written)):
        return name, behind
    bare = written.strip(",")
    return names.get(_embedding_key(bare), ""), f"{written[len(bare) :]} {behind}" if len(bare) < len(
        written
    ) else behind


def _embedding_key(name: str) -> str:
    """Return an embedding's name without folders and ending, in lower case."""
    return re.sub(r"\.(?:safetensors|pt|bin)$", "", name.replace("\\", "/").rpartition("/")[2].casefold())


def _fill(pieces: Sequence[Piece]) -> Chunked:
    """Put the pieces into chunks of 75."""
    closed: list[Chunk] = []
    tokens, weights, slots = list[int](), list[float](), list[Slot]()

    def close() -> None:
        if len(closed) == MAX_CHUNKS:
            raise PromptError(
                f"the prompt has more than {MAX_CHUNKS} chunks of {CHUNK} tokens; shorten it", field="prompt"
            )
        closed.append(Chunk(tokens=tuple(tokens), weights=tuple(weights), slots=tuple(slots)))
        for kept in (tokens, weights, slots):
            kept.clear()

    for piece in pieces:
        left = piece.tokens
        while len(tokens) + len(left) > CHUNK:
            cut = CHUNK - len(tokens) if len(piece.tokens) >= WHOLE else 0
            if cut and piece.embedding:
                raise PromptError(
                    f"the embedding {piece.embedding!r} does not fit into its chunk of {CHUNK} tokens, where ComfyUI would cut it in two; "
                    "move it to another place in the prompt",
                    field="prompt",
                )
            tokens += left[:cut]
            weights += [piece.weight] * cut
            left = left[cut:]
            close()
        if piece.embedding:
            slots.append(Slot(name=piece.embedding, position=len(tokens) + 1, vectors=len(left)))
        tokens += left
        weights += [piece.weight] * len(left)
    count = CHUNK * len(closed) + len(tokens)
    close()
    return Chunked(chunks=tuple(closed), count=count)
