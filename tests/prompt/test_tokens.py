"""Token ids, against transformers' CLIPTokenizer over the same vocabulary."""

import gzip
import subprocess
import sys
from collections import Counter
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from clipskip.errors import PromptError
from clipskip.prompt import END, START, token_ids, token_pieces
from clipskip.prompt.tokens import _MERGES, _VOCABULARY, _tokenizer, readable

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

CORPUS = [
    "",
    "a photograph of an astronaut riding a horse, trending on artstation, 8k",
    "masterpiece, best quality, 1girl, solo, score_9_up, (ultra-detailed), cinematic lighting...",
    "I'm, you're, it's, they'll, we've, he'd, don't; I'M, YOU'RE 'S 't 'll",
    "ÀÉÎÕÜ àéîõü ß ẞ ŉ ǆ ﬁ ﬀ İ ı Σ ς Ω",
    "e\u0301 o\u0308 n\u0303 A\u030a \u1100\u1161\u11a8 \u0301 x\u0301\u0302\u0303",
    "日本語の漢字とカタカナ、한국어 텍스트, 中文提示词 ไทย हिन्दी עברית العربية русский ελληνικά",
    "🐸 👩‍🚀 👨‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 ☃️ 👍🏽 \U0001f9ff\U000e0067",
    "a\u00a0b\u2003c\u3000d\u200be\u2028f\u2029g\x85h\x1ci\x1fj\tk\r\nl\x0bm\x0cn\ufeffo",
    "&amp; &lt;b&gt; &quot;x&quot; &#39; &#x1F438; &amp;amp; <b>bold</b>",
    "\x00 \x01 \x7f \x80 \ufffd \uffff \U0010ffff",
    "0123456789 ٠١٢ ²³¼ Ⅷ 1,000.50 -3e-5 12:30",
    "<|startoftext|> a <|endoftext|><|endoftext|> <|ENDOFTEXT|> <|endoftext| >",
    "!!! ?!?! ... --- ___ === ((())) [[]] {} <> /\\ |~^ `'\" “curly” ‘quotes’ … — «»",
    "supercalifragilisticexpialidocious pneumonoultramicroscopicsilicovolcanoconiosis aaaaaaaaaaaaaaaaaaaaaaaaaa",
    "snake_case camelCase kebab-case dots.in.name a/b\\c user@example.com https://example.com/?q=1&r=2#z",
    "  leading,   inner \n\n and trailing   ",
    "'", "''", "'s's", "a's'", "ʼn", "o'clock'll",
]  # fmt: skip


@cache
def reference() -> CLIPTokenizer:
    vocabulary = _tokenizer().get_vocab()
    with gzip.open(_VOCABULARY) as file:
        merges = file.read().decode().splitlines()[1 : _MERGES + 1]
    return CLIPTokenizer(vocab=vocabulary, merges=[tuple(merge.split(" ")) for merge in merges])


@pytest.mark.parametrize("text", CORPUS, ids=lambda text: repr(text[:20]))
def test_ids_are_those_of_transformers(text: str) -> None:
    assert token_ids(text) == reference()(text, add_special_tokens=False).input_ids


@patient
@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from([*CORPUS, "|>", "<|"]), max_size=4).map("".join)))
def test_ids_of_any_text_are_those_of_transformers(text: str) -> None:
    assert token_ids(text) == reference()(text, add_special_tokens=False).input_ids


def test_letters_from_all_over_unicode_have_the_ids_of_transformers() -> None:
    planes = [*range(1, 0x3000), *range(0x3000, 0xD800, 5), *range(0xE000, 0x30000, 41)]
    for first in range(0, len(planes), 4096):
        text = " ".join(map(chr, planes[first : first + 4096]))
        assert token_ids(text) == reference()(text, add_special_tokens=False).input_ids


def test_known_ids_have_not_moved() -> None:
    # OpenAI's own tokenizer gives these for "a photo of a cat".
    assert token_ids("a photo of a cat") == [320, 1125, 539, 320, 2368]
    assert token_pieces([START, END, 267, 0]) == ["<|startoftext|>", "<|endoftext|>", ",</w>", "!"]


@patient
@given(st.text(alphabet="abc 日本ü,.!", max_size=30))
def test_ids_spell_their_text_but_for_space(text: str) -> None:
    assert readable(token_ids(text)).replace(" ", "") == text.replace(" ", "")


def test_half_a_surrogate_pair_is_an_error() -> None:
    with pytest.raises(PromptError, match="character 3 is half of a surrogate pair"):
        token_ids("a \ud83d")


def test_building_the_tokenizer_takes_few_calls_a_merge() -> None:
    """A limit to its work that is the same on every machine: of Python functions (generators count each item), of C's."""
    calls = Counter[str]()
    _tokenizer.cache_clear()
    sys.setprofile(lambda _, event, __: calls.update([event]))
    try:
        _tokenizer()
    finally:
        sys.setprofile(None)
    assert calls["call"] < 1.1 * _MERGES
    assert calls["c_call"] < 2.1 * _MERGES


def test_importing_the_room_brings_no_torch_and_reads_no_vocabulary() -> None:
    code = (
        "import sys, clipskip.prompt as p; from clipskip.prompt.tokens import _tokenizer;"
        "assert not {'torch', 'numpy', 'transformers', 'lark'} & sys.modules.keys();"
        "assert _tokenizer.cache_info().currsize == 0"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
