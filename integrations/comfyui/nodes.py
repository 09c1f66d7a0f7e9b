"""The nodes that choose a layer and read prompts at it."""

import torch

from clipskip.errors import ClipskipError, PromptError, SpecError
from clipskip.prompt import token_ids
from clipskip.spec import Dialect, asked_skip, parse_columns, request_from_text, translate

from .reading import at_skip, checked, encode_text, family_of

CATEGORY = "conditioning/clip skip"
SKIP_TIP = (
    "1 is the last layer, as in A1111 (ComfyUI's -1). 1.5 lies half-way between two layers. For SDXL 2/5 is one number for each "
    "encoder, CLIP-L first; 2 is SDXL's own."
)
TEXT = (
    "STRING",
    {"multiline": True, "dynamicPrompts": True, "tooltip": "Read as ComfyUI reads prompts: weights, embedding:name."},
)


class ClipSkipNode:
    """A CLIP at a Clip Skip."""

    CATEGORY, FUNCTION = CATEGORY, "apply"
    RETURN_TYPES, RETURN_NAMES = ("CLIP", "STRING"), ("clip", "clip_skip")
    DESCRIPTION = "Read prompts at another layer of CLIP. A number that the encoder does not have is an error, never another layer."

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "clip": ("CLIP", {"tooltip": "Put LoRAs before this node or after it: both count."}),
                "clip_skip": ("STRING", {"default": "2", "tooltip": SKIP_TIP}),
            }
        }

    def apply(self, clip, clip_skip):
        """The CLIP, and the number as it was understood."""
        skip = checked(clip, clip_skip)
        return at_skip(clip, skip), str(skip)


class ClipSkipFromSettings:
    """A CLIP at the Clip Skip of somebody's settings."""

    CATEGORY, FUNCTION = CATEGORY, "apply"
    RETURN_TYPES, RETURN_NAMES = ("CLIP", "STRING"), ("clip", "clip_skip")
    DESCRIPTION = "Paste any tool's settings, or a number and the tool that counts it; the CLIP then reads the layer that tool read."

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "clip": ("CLIP",),
                "settings": (
                    "STRING",
                    {
                        "multiline": True,
                        "tooltip": "A1111's text, a ComfyUI workflow, other tools' JSON, or a number alone.",
                    },
                ),
                "counted_by": (
                    [dialect.name.lower() for dialect in Dialect],
                    {
                        "default": "a1111",
                        "tooltip": "Whose number it is, where it stands alone: ComfyUI's -2 is diffusers' 1.",
                    },
                ),
            }
        }

    def apply(self, clip, settings, counted_by):
        """The CLIP, and its Clip Skip in words."""
        family, _ = family_of(clip)
        try:
            reading = translate(settings.strip(), Dialect[counted_by.upper()], family=family)
        except ClipskipError:
            if len(settings.split()) < 2:
                raise
            request = request_from_text(settings)
            if request.clip_skip is None:
                raise SpecError(
                    "these settings name no Clip Skip; connect the CLIP as it is", field="settings"
                ) from None
            reading = asked_skip(request, family)
        skip = checked(clip, str(reading.skip))
        return at_skip(clip, skip), ". ".join(filter(None, (f"Clip Skip {skip}", reading.remark)))


class EncodeAtClipSkips:
    """A text at several Clip Skips from one pass."""

    CATEGORY, FUNCTION = CATEGORY, "encode"
    RETURN_TYPES, RETURN_NAMES = ("CONDITIONING", "STRING"), ("conditioning", "clip_skip")
    OUTPUT_IS_LIST = (True, True)
    DESCRIPTION = "A list of conditionings, one for each Clip Skip: what follows is run once for each."

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "clip": ("CLIP",),
                "text": TEXT,
                "clip_skips": ("STRING", {"default": "1-5", "tooltip": "1-5, or 1,1.5,2, or for SDXL 2/1-8."}),
            }
        }

    def encode(self, clip, text, clip_skips):
        """Conditionings and their numbers."""
        skips = parse_columns(clip_skips)
        made = encode_text(clip, text, skips)
        return [made[skip] for skip in skips], [f"Clip Skip {skip}" for skip in skips]


class ClipSkipSchedule:
    """A text whose Clip Skip changes while the picture is drawn."""

    CATEGORY, FUNCTION = CATEGORY, "encode"
    RETURN_TYPES = ("CONDITIONING",)
    DESCRIPTION = "One Clip Skip first, another from a share of the sampling on."

    @classmethod
    def INPUT_TYPES(cls):
        share = {
            "default": 0.5,
            "min": 0.001,
            "max": 0.999,
            "step": 0.001,
            "tooltip": "Share of the sampling; 0.5 is half-way.",
        }
        return {
            "required": {
                "clip": ("CLIP",),
                "text": TEXT,
                "first": ("STRING", {"default": "1", "tooltip": SKIP_TIP}),
                "then": ("STRING", {"default": "2", "tooltip": SKIP_TIP}),
                "change_at": ("FLOAT", share),
            }
        }

    def encode(self, clip, text, first, then, change_at):
        """Both conditionings, each with its range of timesteps."""
        skips = [checked(clip, first), checked(clip, then)]
        made = encode_text(clip, text, skips)
        ranges = ((0.0, change_at), (change_at, 1.0))
        return (
            [
                [cond, {**more, "start_percent": start, "end_percent": end}]
                for skip, (start, end) in zip(skips, ranges, strict=True)
                for cond, more in made[skip]
            ],
        )


class ClipSkipOfPhrase:
    """A text one phrase of which has a Clip Skip of its own."""

    CATEGORY, FUNCTION = CATEGORY, "encode"
    RETURN_TYPES = ("CONDITIONING",)
    DESCRIPTION = (
        "The phrase's tokens take their vectors from another layer; those of the other words are as they were."
    )

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "clip": ("CLIP",),
                "text": TEXT,
                "clip_skip": ("STRING", {"default": "1", "tooltip": SKIP_TIP}),
                "phrase": (
                    "STRING",
                    {"default": "", "tooltip": "As the text writes it, without brackets and weights."},
                ),
                "phrase_clip_skip": ("STRING", {"default": "2", "tooltip": SKIP_TIP}),
            }
        }

    def encode(self, clip, text, clip_skip, phrase, phrase_clip_skip):
        """The conditioning."""
        rest, own = checked(clip, clip_skip), checked(clip, phrase_clip_skip)
        made = encode_text(clip, text, [rest, own])
        places = phrase_places(next(iter(clip.tokenize(text).values())), phrase)
        cond, more = made[rest][0]
        chosen = torch.where(places.to(cond.device)[None, : cond.shape[1], None], made[own][0][0], cond)
        return ([[chosen, more]],)


def phrase_places(sections, phrase: str):
    """Which tokens are the phrase's; PromptError where the text does not have it."""
    wanted = token_ids(phrase)
    flat = [token if isinstance(token, int) else -1 for section in sections for token, *_ in section]
    inner = [(place, token) for place, token in enumerate(flat) if token not in (49406, 49407, 0)]
    tokens = [token for _, token in inner]
    places = torch.zeros(len(flat), dtype=torch.bool)
    for start in range(len(tokens) - len(wanted) + 1):
        if wanted and tokens[start : start + len(wanted)] == wanted:
            for place, _ in inner[start : start + len(wanted)]:
                places[place] = True
    if not places.any():
        raise PromptError(
            f"the text has no phrase {phrase[:60]!r}; write it as the text does, without brackets and weights"
        )
    return places
