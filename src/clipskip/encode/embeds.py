"""Vectors of one text for other tools' pipelines and for files, without a sampler of ours."""

from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict

import torch
from jaxtyping import Float
from torch import Tensor

from clipskip.encode.conditioning import TextVectors
from clipskip.encode.encoder_run import EncoderRun
from clipskip.encode.reader import TextReader
from clipskip.errors import PromptError
from clipskip.prompt import Prompt, read_prompt
from clipskip.spec import ClipSkip, Skip

CALLS = 1000
"""The number of denoiser calls over which a text is read, to make sure that it stays the same."""


class PromptEmbeds(TypedDict):
    """Keyword arguments of diffusers' pipelines: pipe(**prompt_embeds(...))."""

    prompt_embeds: Float[Tensor, "1 tokens width"]
    negative_prompt_embeds: Float[Tensor, "1 tokens width"]
    pooled_prompt_embeds: NotRequired[Float[Tensor, "1 pooled"]]
    """Set for SDXL only, as is the next."""
    negative_pooled_prompt_embeds: NotRequired[Float[Tensor, "1 pooled"]]


def encode_text(reader: TextReader, text: str, skips: Sequence[Skip]) -> dict[Skip, TextVectors]:
    """Encode one text at each Clip Skip, weighted as in A1111, with one pass of each encoder."""
    for skip in skips:
        reader.check(skip)
    prompt = one_text(reader, text)
    run = EncoderRun(reader, [prompt], skips)
    return {skip: _text_vectors(run, prompt, skip) for skip in skips}


def text_tensors(texts: Mapping[Skip, TextVectors]) -> dict[str, Tensor]:
    """Return what `encode_text` gives under the names used in files: clip_skip_N, and pooled where there is one."""
    tensors = {f"clip_skip_{skip}": vectors.tokens.contiguous() for skip, vectors in texts.items()}
    pooled = next((vectors.pooled for vectors in texts.values()), None)
    return tensors if pooled is None else {**tensors, "pooled": pooled.contiguous()}


def encode_layers(
    reader: TextReader, text: str, skips: Sequence[ClipSkip]
) -> dict[ClipSkip, Float[Tensor, "tokens width"]]:
    """Return the token vectors of one text at each Clip Skip; SDXL's two encoders are concatenated."""
    texts = encode_text(reader, text, skips)
    return {skip: texts[skip].tokens for skip in skips}


def prompt_embeds(
    reader: TextReader,
    prompt: str,
    negative_prompt: str = "",
    *,
    clip_skip: Skip | None = None,
    negative_clip_skip: Skip | None = None,
    zero_negative: bool = True,
) -> PromptEmbeds:
    """Return the conditioning of a prompt and a negative prompt at a Clip Skip.

    Without `clip_skip` the family's default is used; without `negative_clip_skip`, the prompt's. Both results have one
    length, as diffusers requires: the shorter is filled up with the empty prompt's vectors, 77 at a time, as A1111 does
    with "Pad prompt/negative prompt to be same length" (sd_samplers_cfg_denoiser.py pad_cond). For SDXL an empty
    negative prompt gives zeros, as in A1111, unless `zero_negative` is False.
    """
    skip = clip_skip or ClipSkip(reader.family.value.default_skip)
    texts = [one_text(reader, prompt), one_text(reader, negative_prompt, negative=True), one_text(reader, "")]
    skips = (skip, negative_clip_skip or skip)
    for at in skips:
        reader.check(at)
    run = EncoderRun(reader, texts, skips)
    vectors = [_text_vectors(run, text, at) for text, at in zip(texts[:2], skips, strict=True)]
    longest = max(len(side.tokens) for side in vectors)
    padded = [
        torch.cat([side.tokens, _text_vectors(run, texts[2], at).tokens.repeat((longest - len(side.tokens)) // 77, 1)])
        for side, at in zip(vectors, skips, strict=True)
    ]
    pooled = [side.pooled for side in vectors]
    if pooled[1] is not None and zero_negative and not negative_prompt:
        padded[1], pooled[1] = torch.zeros_like(padded[1]), torch.zeros_like(pooled[1])
    embeds = PromptEmbeds(prompt_embeds=padded[0][None], negative_prompt_embeds=padded[1][None])
    if pooled[0] is not None and pooled[1] is not None:
        embeds["pooled_prompt_embeds"], embeds["negative_pooled_prompt_embeds"] = pooled[0][None], pooled[1][None]
    return embeds


def _text_vectors(run: EncoderRun, prompt: Prompt, skip: Skip) -> TextVectors:
    return run.schedule(prompt.parts[0].schedule, prompt.emphasis, skip=skip)[0][1]


def one_text(reader: TextReader, text: str, *, negative: bool = False) -> Prompt:
    """Read a prompt of one part and one text; PromptError where one set of vectors cannot express it."""
    prompt = read_prompt(text, steps=CALLS, embeddings=reader.vector_counts, negative=negative)
    if prompt.loras:
        raise PromptError(
            f"the prompt names the LoRA {prompt.loras[0].name!r}, which changes weights, not words; "
            "merge it first and take its tag out of the prompt",
            field="prompt",
        )
    if len(prompt.parts) > 1 or prompt.parts[0].weight != 1:
        raise PromptError(
            "the prompt has AND or ends in a weight, which only a sampler can combine; encode each part by itself",
            field="prompt",
        )
    if len({entry.text for entry in prompt.parts[0].schedule}) > 1:
        raise PromptError(
            "the prompt changes from step to step ([from:to:when] or [a|b]); encode each of its texts by itself",
            field="prompt",
        )
    return prompt
