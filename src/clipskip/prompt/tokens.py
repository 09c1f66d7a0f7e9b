"""Words to CLIP's token ids: byte pairs over OpenAI's vocabulary (Radford et al. 2021, section 2.4).

The vocabulary file is OpenAI's, MIT licensed (its notice lies beside it). Ids agree with transformers' CLIPTokenizer.
"""

import gzip
import re
from collections.abc import Iterable
from functools import cache
from itertools import islice
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE

from clipskip.prompt.limits import check_text

START, END = 49406, 49407
COMMA = 267
WORD_END = "</w>"

_VOCABULARY = Path(__file__).with_name("bpe_simple_vocab_16e6.txt.gz")
_MERGES, _MERGES_BYTES = 48_894, 524_645
"""What CLIP uses of the file: its first lines, after a heading."""
_SPECIAL = ("<|startoftext|>", "<|endoftext|>")
_WORD = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
"""CLIP's words: contractions, runs of letters, single digits, runs of anything else."""
_PLAIN = re.compile(f"[a-z]{{3,}}{WORD_END}")


def token_ids(text: str) -> list[int]:
    """Return the text's token ids, without start and end."""
    check_text(text)
    ids: list[int] = _tokenizer().encode(text, add_special_tokens=False).ids
    return ids


def token_pieces(ids: Iterable[int]) -> list[str]:
    """Return each id's entry of the vocabulary, such as "cat</w>"; bytes beyond ASCII appear as single letters."""
    return [_tokenizer().id_to_token(token) for token in ids]


def readable(ids: Iterable[int]) -> str:
    """Return the spelling of the ids, with a space after each word; a character cut between two tokens shows as "�"."""
    letters = _letters()
    return b"".join(_spelled(piece, letters) for piece in token_pieces(ids)).decode(errors="replace")


def ends_word(token: int) -> bool:
    """Return whether a word ends with this token."""
    return token_pieces([token])[0].endswith(WORD_END)


def common_words(count: int) -> list[int]:
    """Return the ids of so many words of three letters or more that are one token, most frequent in CLIP's texts first.

    The vocabulary is in the order of its byte-pair merges, the most frequent pair first (Sennrich et al. 2016).
    """
    plain = (token for token, piece in enumerate(token_pieces(range(START))) if _PLAIN.fullmatch(piece))
    return list(islice(plain, count))


def _spelled(piece: str, letters: dict[str, int]) -> bytes:
    """Return the UTF-8 bytes of one piece."""
    if piece in _SPECIAL:
        return f"{piece} ".encode()
    stem = piece.removesuffix(WORD_END)
    return bytes(letters[letter] for letter in stem) + (b" " if stem != piece else b"")


@cache
def _letters() -> dict[str, int]:
    """Return the printable letter that stands for each byte, in the order of CLIP's first 256 ids."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = sorted(set(range(256)) - set(printable))
    return {chr(byte): byte for byte in printable} | {chr(256 + at): byte for at, byte in enumerate(others)}


@cache
def _tokenizer() -> Tokenizer:
    """Return the tokenizer, built on first use (0.1 s)."""
    with gzip.open(_VOCABULARY) as file:
        merges = file.read(_MERGES_BYTES).decode().split("\n")[1 : _MERGES + 1]
    letters = list(_letters())
    pieces = [
        *letters,
        *(letter + WORD_END for letter in letters),
        *(merge.replace(" ", "") for merge in merges),
        *_SPECIAL,
    ]
    model = BPE(
        vocab={piece: at for at, piece in enumerate(pieces)},
        merges=[tuple(merge.split(" ")) for merge in merges],
        end_of_word_suffix=WORD_END,
        unk_token=_SPECIAL[1],
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORD), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in _SPECIAL])
    return tokenizer
