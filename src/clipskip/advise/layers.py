"""A text in; what each layer of the text encoder makes of its words, in numbers, out.

All vectors are taken as a picture is conditioned on them (through the final norm, where the family has one), less the
mean of many common words said alone: what all words share says nothing of any (Mu and Viswanath 2018, "All-but-the-top").
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from clipskip.encode import EncoderReading, TextReader, one_text, read_layer
from clipskip.errors import PromptError
from clipskip.networks import Injection, best_dtype
from clipskip.prompt import CHUNK, END, START, Chunk, common_words, ends_word, readable
from clipskip.spec import ClipSkip

COMMON, SHARED = 12_000, 1000
"""Words that are said alone: to look for the nearest among, and, the first of them, for what all words share."""
NEAREST = 3
ROWS = 32
"""Sequences of 77 that the encoder takes at once."""
WORDS_AT_ONCE = 2048
MOST_CHUNKS = 4
HEARD_LEAST = 0.02
"""A word that moves another by less than this at every layer is not told of."""
HEARD_MOST = 12
"""Words that are told of as heard by one word, the strongest first."""
TINY = 1e-6

Curve = tuple[float, ...]
"""A number for each Clip Skip."""
Vectors = Float[Tensor, "skips words width"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """One word in another's vector."""

    word: str
    share: Curve
    """How far the vector moves when the token cannot see this word, as a share of its length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Near:
    """A word that, said alone, gives much the same vector."""

    word: str
    cosine: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WordLayers:
    """One word of the text (or the end of a chunk) through the layers."""

    text: str
    context: Curve
    """How far all other words together move its vector, as a share of its length."""
    turned: Curve
    """1 - cosine to its vector at the next Clip Skip: what the layer that Clip Skip reads has added to the one before."""
    heard: tuple[Heard, ...]
    nearest: tuple[tuple[Near, ...], ...]
    """For each Clip Skip, the nearest words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerReading:
    """The result of `read_layers`."""

    skips: tuple[int, ...]
    """Every Clip Skip of the model, 1 first."""
    tokens: int
    likeness: tuple[Curve, ...]
    """Mean over the words of the cosine between their vectors at two Clip Skips."""
    plain_likeness: Curve
    """The same of neighbours (a Clip Skip and the next), with what all words share left in."""
    written: Curve
    """How far each layer moves the words' vectors before the final norm, as a share of their length."""
    words: tuple[WordLayers, ...]
    compared: int
    """Common words that the nearest were looked for among."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Word:
    """A word's place: the first and last of a chunk's 77 positions."""

    text: str
    chunk: int
    first: int
    last: int

    @property
    def is_end(self) -> bool:
        return self.text == "(end)"

    @property
    def said(self) -> bool:
        """Return whether it is worth a line: commas are not."""
        return self.is_end or any(letter.isalnum() for letter in self.text)


@torch.no_grad()
def read_layers(reader: TextReader, text: str, *, encoder: int = 0, common: int = COMMON) -> LayerReading:
    """Read a text's words at each layer of one of the encoders.

    PromptError for a long text, or one that only a sampler can combine.

    Weights in the text are left out: they come after the encoder and scale its vectors alike at every layer.
    """
    reading, chunks = reader.encoders[encoder], _chunks_of(reader, text)
    words = [word for at, chunk in enumerate(chunks) for word in _words_of(chunk, at)]
    known = _known(chunks, common)
    alone = _Alone(reading, known, shared=min(common, SHARED))
    readings = [
        _Heard.of(reader, reading, chunk, [word for word in words if word.chunk == at])
        for at, chunk in enumerate(chunks)
    ]
    whole = torch.cat([part.whole for part in readings], dim=1)
    is_end = torch.tensor([word.is_end for word in words])
    centred = whole - alone.mean(is_end)
    skips = alone.skips
    length = centred.norm(dim=-1).clamp_min(TINY)
    context = torch.cat([part.context for part in readings], dim=1) / length
    unit = normalize(centred, dim=-1)
    likeness = torch.einsum("swd,twd->st", unit, unit) / len(words)
    turned = torch.cat([1 - (unit[:-1] * unit[1:]).sum(-1), torch.zeros(1, len(words))])
    nearest = alone.nearest(centred, is_end)
    starts = list(accumulate((part.whole.shape[1] for part in readings), initial=0))
    return LayerReading(
        skips=skips,
        tokens=sum(len(chunk.tokens) for chunk in chunks),
        likeness=tuple(_curve(row) for row in likeness),
        plain_likeness=_curve(cosine_similarity(whole[:-1], whole[1:], dim=-1).mean(1)),
        written=_curve(torch.cat([part.written for part in readings], dim=1).mean(1)),
        words=tuple(
            WordLayers(
                text=word.text,
                context=_curve(context[:, i]),
                turned=_curve(turned[:, i]),
                heard=readings[word.chunk].strongest(i - starts[word.chunk], length[:, i]),
                nearest=tuple(nearest[s][i] for s in range(len(skips))),
            )
            for i, word in enumerate(words)
            if word.said
        ),
        compared=len(known),
    )


def _chunks_of(reader: TextReader, text: str) -> Sequence[Chunk]:
    """Return the text's chunks; PromptError for more than can be read."""
    chunks = one_text(reader, text).parts[0].schedule[0].chunks
    if len(chunks) > MOST_CHUNKS:
        raise PromptError(
            f"the prompt has {len(chunks)} chunks of 75 tokens, and layers are read for at most {MOST_CHUNKS}; "
            "give only the part in question",
            field="prompt",
        )
    return chunks


def _known(chunks: Sequence[Chunk], common: int) -> list[int]:
    """Return the tokens that a word may be nearest to: common words, and the text's own."""
    own = {token for chunk in chunks for token in chunk.tokens if readable([token]).strip().isalpha()}
    return list(dict.fromkeys([*common_words(common), *sorted(token for token in own if ends_word(token))]))


def _curve(values: Tensor) -> Curve:
    return tuple(round(float(value), 4) for value in values)


def _words_of(chunk: Chunk, at: int) -> Iterator[_Word]:
    """Yield the words of a chunk, an embedding's vectors as one, and its end."""
    starts = {slot.position: slot for slot in chunk.slots}
    position = first = 1
    while position <= len(chunk.tokens):
        if slot := starts.get(position):
            yield _Word(text=slot.name, chunk=at, first=position, last=position + slot.vectors - 1)
            position = first = position + slot.vectors
            continue
        token = chunk.tokens[position - 1]
        if ends_word(token) or position == len(chunk.tokens) or position + 1 in starts:
            spelled = readable(chunk.tokens[first - 1 : position]).strip()
            yield _Word(text=spelled, chunk=at, first=first, last=position)
            first = position + 1
        position += 1
    yield _Word(text="(end)", chunk=at, first=len(chunk.tokens) + 1, last=len(chunk.tokens) + 1)


def _readable_skips(reading: EncoderReading) -> tuple[int, ...]:
    return tuple(range(1 + reading.depth - reading.network.shape.depth, reading.depth + 1))


def _as_read(
    reading: EncoderReading, states: Sequence[Float[Tensor, "*rows width"]]
) -> Float[Tensor, "skips *rows width"]:
    """h[0] to h[depth] as each Clip Skip reads them."""
    depth, norm = reading.depth, reading.final_norm
    return torch.stack(
        [
            read_layer(states, ClipSkip(skip), depth=depth, final_norm=norm).float().cpu()
            for skip in _readable_skips(reading)
        ]
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Heard:
    """The words of one chunk: whole, and as they are when they cannot see some of the others."""

    words: Sequence[_Word]
    whole: Vectors
    context: Float[Tensor, "skips words"]
    """Lengths by which the vectors move when a word sees itself alone."""
    each: Float[Tensor, "skips others words"]
    """The same when one other word is hidden from all the others."""
    written: Float[Tensor, "skips words"]

    @classmethod
    def of(cls, reader: TextReader, reading: EncoderReading, chunk: Chunk, words: Sequence[_Word]) -> "_Heard":
        masks = _masks(words, tokens=CHUNK + 2)
        device = reading.device
        ids = torch.tensor([chunk.ids(pad=reading.rule.padding)], device=device)
        parts: list[Tensor] = []
        plain = torch.empty(0)
        for group in torch.split(masks, ROWS):
            injected = [
                Injection(row=row, position=slot.position, vectors=reader.vectors_of(slot.name, reading))
                for row in range(len(group))
                for slot in chunk.slots
            ]
            states = reading.network.layers(ids.expand(len(group), -1), injected=injected, visible=group.to(device))
            if not parts:
                plain = torch.stack([state[0] for state in states]).float().cpu()
            parts.append(_at_words(_as_read(reading, states), words))
        vectors = torch.cat(parts, dim=1)
        moved = (vectors[:, 1:] - vectors[:, :1]).norm(dim=-1)
        depth, steps = reading.depth, (plain[1:] - plain[:-1]).norm(dim=-1) / plain[:-1].norm(dim=-1).clamp_min(TINY)
        written = torch.stack([steps[depth - skip, [word.last for word in words]] for skip in _readable_skips(reading)])
        return cls(words=words, whole=vectors[:, 0], context=moved[:, 0], each=moved[:, 1:], written=written)

    def strongest(self, word: int, length: Float[Tensor, " skips"]) -> tuple[Heard, ...]:
        """Return the words that a word takes in, the strongest first."""
        shares = self.each[:, :, word] / length[:, None]
        most = shares.amax(0)
        order = [i for i in most.argsort(descending=True).tolist() if i != word and most[i] >= HEARD_LEAST]
        return tuple(Heard(word=self.words[i].text, share=_curve(shares[:, i])) for i in order[:HEARD_MOST])


def _masks(words: Sequence[_Word], *, tokens: int) -> Bool[Tensor, "rows tokens tokens"]:
    """Return the tokens that each token attends to: all before it; itself alone; all but one word, for each word that is not the end.

    Hiding a token from all later ones takes out everything that it says, also by way of others ("attention knockout",
    Geva et al. 2023).
    """
    causal = torch.ones(tokens, tokens, dtype=torch.bool).tril()
    alone = torch.zeros_like(causal)
    alone[:, 0] = True
    for word in words:
        alone[word.first : word.last + 1, word.first : word.last + 1] = True
    alone |= torch.eye(tokens, dtype=torch.bool)
    rows = [causal, alone & causal]
    for word in words:
        if not word.is_end:
            hidden = causal.clone()
            hidden[word.last + 1 :, word.first : word.last + 1] = False
            rows.append(hidden)
    return torch.stack(rows)


def _at_words(
    states: Float[Tensor, "skips rows tokens width"], words: Sequence[_Word]
) -> Float[Tensor, "skips rows words width"]:
    """Return the vectors at the last token of each word, which has attended to the whole word."""
    return states[:, :, [word.last for word in words]]


class _Alone:
    """Many words, each said alone (start, word, end): their vectors at the word and at the end, by Clip Skip.

    What they share is taken exactly, from the first of them; the nearest are looked for in what is fastest.
    """

    def __init__(self, reading: EncoderReading, known: Sequence[int], *, shared: int) -> None:
        self.skips = _readable_skips(reading)
        self._known = list(known)
        device = reading.device
        dtype = best_dtype(device)
        ids = torch.tensor([(START, word, END) for word in known], device=device)
        self._shared = _said_alone(reading, ids[:shared]).mean(1)
        with torch.autocast(device.type, dtype, enabled=dtype is not torch.float32):
            parts = [_said_alone(reading, group).bfloat16() for group in torch.split(ids, WORDS_AT_ONCE)]
        self._vectors = torch.cat(parts, dim=1)

    def mean(self, is_end: Bool[Tensor, " words"]) -> Vectors:
        """Return the part that all words share, at a word or at the end."""
        return self._shared[:, is_end.long()]

    def nearest(self, vectors: Vectors, is_end: Bool[Tensor, " words"]) -> list[list[tuple[Near, ...]]]:
        """Return, for each Clip Skip and word, the vocabulary words with the most similar vectors."""
        names = [readable([word]).strip() for word in self._known]
        nearest = []
        for at_skip, lone in zip(vectors, self._vectors, strict=True):
            own = lone.float() - lone.float().mean(0)
            at_words, at_ends = normalize(at_skip, dim=-1) @ normalize(own, dim=-1).permute(1, 2, 0)
            best = torch.where(is_end[:, None], at_ends, at_words).topk(min(NEAREST, len(names)))
            nearest.append(
                [
                    tuple(Near(word=names[i], cosine=round(c, 4)) for i, c in zip(row, values, strict=True))
                    for row, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
                ]
            )
        return nearest


def _said_alone(reading: EncoderReading, ids: Int[Tensor, "words 3"]) -> Float[Tensor, "skips words 2 width"]:
    return _as_read(reading, reading.network.layers(ids))[:, :, 1:]
