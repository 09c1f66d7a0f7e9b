"""Vectors for other people's pipelines and for files: one text, no sampler of ours."""

from collections.abc import Sequence
from typing import TypedDict

import torch
from jaxtyping import Float
from torch import Tensor

from clipskip.encode.texts import Run, TextReader
from clipskip.errors import PromptError
from clipskip.prompt import Prompt, read_prompt
from clipskip.spec import ClipSkip

CALLS = 1000
"""Denoiser calls over which a text is read to see that it stays the same."""


class PromptEmbeds(TypedDict):
    """Keyword arguments of diffusers' pipelines: pipe(**prompt_embeds(...))."""

    prompt_embeds: Float[Tensor, "1 tokens width"]
    negative_prompt_embeds: Float[Tensor, "1 tokens width"]


def encode_layers(
    reader: TextReader, text: str, skips: Sequence[ClipSkip]
) -> dict[ClipSkip, Float[Tensor, "tokens width"]]:
    """One text at each Clip Skip, weighted as A1111 weights it, from one pass of the encoder."""
    prompt = one_text(reader, text)
    run = Run(reader, [prompt], skips)
    return {skip: _vectors(run, prompt, skip) for skip in skips}


def prompt_embeds(
    reader: TextReader,
    prompt: str,
    negative_prompt: str = "",
    *,
    clip_skip: ClipSkip | None = None,
    negative_clip_skip: ClipSkip | None = None,
) -> PromptEmbeds:
    """The two conditionings at a Clip Skip (None: the family's own; for the negative prompt: the prompt's).

    They have one length, as diffusers wants it: the shorter goes on with the empty prompt's vectors, 77 at a time, as
    A1111 pads with "Pad prompt/negative prompt to be same length" (sd_samplers_cfg_denoiser.py pad_cond).
    """
    skip = clip_skip or ClipSkip(reader.family.value.default_skip)
    texts = [one_text(reader, prompt), one_text(reader, negative_prompt, negative=True), one_text(reader, "")]
    skips = (skip, negative_clip_skip or skip)
    run = Run(reader, texts, skips)
    vectors = [_vectors(run, text, at) for text, at in zip(texts[:2], skips, strict=True)]
    tokens = max(len(one) for one in vectors)
    padded = [
        torch.cat([one, _vectors(run, texts[2], at).repeat((tokens - len(one)) // 77, 1)])
        for one, at in zip(vectors, skips, strict=True)
    ]
    return PromptEmbeds(prompt_embeds=padded[0][None], negative_prompt_embeds=padded[1][None])


def _vectors(run: Run, prompt: Prompt, skip: ClipSkip) -> Float[Tensor, "tokens width"]:
    return run.schedule(prompt.parts[0].schedule, prompt.emphasis, skip=skip)[0][1]


def one_text(reader: TextReader, text: str, *, negative: bool = False) -> Prompt:
    """The prompt, of one part and one text; PromptError where it is more than one set of vectors can say."""
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
