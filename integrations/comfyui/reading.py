"""A ComfyUI CLIP in, conditioning at any Clip Skips out, every layer from one pass.

Of the CLIP only its public methods are called: `clone`, `clip_layer`, `tokenize`, `encode_from_tokens_scheduled`, `get_sd`.
Texts are cut into tokens, embeddings and weights by ComfyUI; the layers are read by clipskip with the same weights, LoRAs in them.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from clipskip.encode import TextReader, read_encoders, read_layer
from clipskip.encode.emphasis import from_empty
from clipskip.errors import SpecError
from clipskip.networks import Injection
from clipskip.spec import ClipSkip, Family, Skip, check_depths, parse_skip, skip_for

FAMILIES: Mapping[frozenset[str], tuple[Family, tuple[str, ...]]] = {
    frozenset("l"): (Family.SD1, ("l",)),
    frozenset("h"): (Family.SD2, ("h",)),
    frozenset("lg"): (Family.SDXL, ("l", "g")),
}
"""What ComfyUI calls a family's encoders, in the order of their vectors."""
START, END = 49406, 49407
AGREES = 1e-3
"""Of the largest number: how near our layer 2 must come to ComfyUI's before others are read for it (float32 gives 1e-6)."""


def family_of(clip) -> tuple[Family, tuple[str, ...]]:
    """The family of a CLIP and the names of its encoders; SpecError where Clip Skip has no meaning or is not known here."""
    names = frozenset(clip.tokenize(""))
    if names in FAMILIES:
        return FAMILIES[names]
    raise SpecError(
        f"this CLIP reads prompts with {', '.join(sorted(names))}; Clip Skip is for the CLIP-L of SD 1.x, the OpenCLIP-H of "
        "SD 2.x and the two encoders of SDXL. In other families, and in SDXL's refiner, another layer is none that the model "
        "was trained on",
        field="clip_skip",
    )


def checked(clip, text: str) -> Skip:
    """The Clip Skip that was typed, or an error that says what this CLIP has."""
    family, _ = family_of(clip)
    return check_depths(parse_skip(str(text)), [encoder.depth for encoder in family.value.encoders])


def at_skip(clip, skip: Skip):
    """The CLIP at a Clip Skip: ComfyUI's own where that is a whole number for all encoders, else one that mixes or splits."""
    if isinstance(skip, ClipSkip) and not skip.fraction:
        own = clip.clone()
        own.clip_layer(-skip.shallow)
        return own
    if any(len(skip_for(skip, number).parts) > 1 for number in (0, 1)):
        raise SpecError(
            f"clip skip {skip} changes from step to step, which a CLIP cannot say; use the node Clip Skip schedule",
            field="clip_skip",
        )
    return SkippedClip(clip, skip)


class SkippedClip:
    """A CLIP whose texts are read at a fraction, or at a layer of its own for each encoder; all else is the CLIP it is of."""

    def __init__(self, clip, skip: Skip) -> None:
        object.__setattr__(self, "_clip", clip)
        object.__setattr__(self, "_skip", skip)

    def __getattr__(self, name: str):
        return getattr(self._clip, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._clip, name, value)

    def clone(self):
        """Another of the same: what LoRA loaders change."""
        return SkippedClip(self._clip.clone(), self._skip)

    def clip_layer(self, layer_idx: int) -> None:
        """A later node's layer is the one that counts, as in ComfyUI."""
        object.__setattr__(self, "_skip", ClipSkip(-layer_idx))

    def encode_from_tokens_scheduled(self, tokens, unprojected=False, add_dict=None, show_pbar=True):
        """Conditioning, as ComfyUI's text nodes ask for it."""
        return encode_tokens(self._clip, tokens, [self._skip], unprojected=unprojected, add_dict=add_dict)[self._skip]

    def encode_from_tokens(self, tokens, return_pooled=False, return_dict=False):
        """The same in the forms that other nodes ask for."""
        cond, more = self.encode_from_tokens_scheduled(tokens, unprojected=return_pooled == "unprojected")[0]
        if return_dict:
            return {"cond": cond, **more}
        return (cond, more.get("pooled_output")) if return_pooled else cond

    def encode(self, text: str):
        """The text's vectors."""
        return self.encode_from_tokens(self.tokenize(text))


def encode_text(clip, text: str, skips: Sequence[Skip]) -> dict:
    """Conditioning of a text at each Clip Skip, from one pass of each encoder."""
    return encode_tokens(clip, clip.tokenize(text), skips)


@torch.no_grad()
def encode_tokens(clip, tokens, skips: Sequence[Skip], *, unprojected=False, add_dict=None) -> dict:
    """Conditioning of tokens at each Clip Skip; the pooled vector and what else ComfyUI adds are its own.

    ComfyUI reads Clip Skip 2 first, and ours must agree: an encoder that something has changed in other ways than by weights is
    an error, never other vectors.
    """
    family, names = family_of(clip)
    depths = [encoder.depth for encoder in family.value.encoders]
    for skip in skips:
        check_depths(skip, depths)
    second = ClipSkip(2)
    scheduled = at_skip(clip, second).encode_from_tokens_scheduled(
        tokens, unprojected=unprojected, add_dict=add_dict or {}
    )
    if len(scheduled) != 1:
        raise SpecError("this CLIP has hooks that change over the steps; put the hooks on the conditioning instead")
    theirs, more = scheduled[0]
    reader = read_clip(clip, family, names)
    wanted = list(dict.fromkeys([*skips, second]))
    sides = [_side(reader, number, tokens[name], wanted) for number, name in enumerate(names)]
    shortest = min(side[second].shape[1] for side in sides)
    found = {skip: torch.cat([side[skip][:, :shortest] for side in sides], -1).to(theirs) for skip in wanted}
    if not torch.allclose(found[second], theirs, rtol=0, atol=AGREES * theirs.abs().max().item()):
        raise SpecError(
            "this CLIP does not read its prompt with its weights alone (another node has changed how, or its weights are not all "
            "loaded); fractions, one number for each encoder and lists cannot be read from it: use a whole number"
        )
    return {skip: [[found[skip], dict(more)]] for skip in skips}


def read_clip(clip, family: Family, names: Sequence[str]) -> TextReader:
    """The CLIP's encoders as they are loaded now, with its LoRAs, in float32 as ComfyUI computes them."""
    weights = clip.get_sd()
    parts = []
    for name in names:
        start = f"clip_{name}.transformer."
        parts.append({key.removeprefix(start): value for key, value in weights.items() if key.startswith(start)})
    return read_encoders(*parts, family=family, dtype=torch.float32)


def _side(reader: TextReader, number: int, sections, skips: Sequence[Skip]) -> dict[Skip, Tensor]:
    """One encoder's vectors [1, tokens, width] at each Clip Skip, weighted as ComfyUI weights them."""
    encoder = reader.encoders[number]
    pad, device = encoder.rule.padding, encoder.device
    empty = [START, END, *[pad] * (len(sections[0]) - 2)]
    rows = [[token if isinstance(token, int) else pad for token, *_ in section] for section in sections]
    injected = [
        Injection(row=row, position=position, vectors=token.reshape(1, -1))
        for row, section in enumerate(sections)
        for position, (token, *_) in enumerate(section)
        if not isinstance(token, int)
    ]
    weights = torch.tensor([[[weight for _, weight, *_ in section] for section in sections]], device=device)
    kept = encoder.layers(part for skip in skips for part in encoder.skip(skip).parts)
    states = encoder.network.layers(torch.tensor([*rows, empty], device=device), upto=kept[-1], injected=injected)
    found = {}
    for skip in skips:
        layer = read_layer(states, encoder.skip(skip).first, depth=encoder.depth, final_norm=encoder.final_norm)
        found[skip] = from_empty(layer[None, :-1], weights, layer[None, -1:]).flatten(1, 2)
    return found
