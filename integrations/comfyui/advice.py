"""What clipskip knows of a checkpoint, its LoRAs and a prompt, as text, number and picture."""

from pathlib import Path

import folder_paths
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from clipskip.advise import Wanted, advise, advise_by_family, read_layers, whole_skips
from clipskip.doors.advice_text import lines, row
from clipskip.doors.layers_text import layer_lines
from clipskip.errors import SpecError
from clipskip.spec import Dialect, LoraRef, Request, parse_skips
from clipskip.sweep import load_model
from clipskip.weights import Library

from .nodes import CATEGORY, TEXT
from .plots import curves
from .reading import family_of, read_clip

NONE = "none"
CELL_W, CELL_H, LEFT = 64, 30, 200


class ClipSkipAdvice:
    """Which Clip Skip to use, why, and what is left of a LoRA at each."""

    CATEGORY, FUNCTION = CATEGORY, "ask"
    RETURN_TYPES, RETURN_NAMES = ("STRING", "STRING", "IMAGE"), ("advice", "clip_skip", "plot")
    OUTPUT_NODE = True
    DESCRIPTION = (
        "Asks the model itself: what it and its LoRA were trained at, how much of the prompt and of the LoRA is left at each Clip "
        "Skip (uptake), where pictures fall apart. It opens the files a second time, in clipskip's own engine, for as long as it asks."
    )

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": _asked([NONE, *folder_paths.get_filename_list("loras")])}

    def ask(self, checkpoint, lora, lora_weight, positive, negative, clip_skips):
        """The advice in words, its number for the node Clip Skip, and what it rests on as curves."""
        advice, family = _advice(checkpoint, lora, lora_weight, positive, negative, clip_skips)
        told = "\n".join(lines(advice, family=family, tool=Dialect.COMFYUI))
        chosen, prompted = advice.verdict.skip, advice.prompted
        if prompted is None:
            curve = {"chance that the model was trained at it": [chance for _, chance in advice.model_chances]}
            plot = curves(
                f"{advice.model}: trained at", [skip for skip, _ in advice.model_chances], curve, chosen=chosen
            )
        else:
            curve = {"guidance kept": prompted.guidance_kept}
            curve |= {f"{one.name}: taken up": one.uptake for one in prompted.loras}
            plot = curves(f"{advice.model}: {positive}", prompted.skips, curve, chosen=chosen)
        return told, str(chosen), _image(plot)


class ClipSkipUptake:
    """How much of a LoRA a model takes up at each Clip Skip."""

    CATEGORY, FUNCTION = CATEGORY, "ask"
    RETURN_TYPES = ("STRING", "FLOAT", "STRING", "IMAGE")
    RETURN_NAMES = ("verdict", "uptake", "clip_skip", "plot")
    OUTPUT_NODE = True
    DESCRIPTION = (
        "How much of what the LoRA adds where it was trained is left at each Clip Skip, and by which of its parts. It opens the files a "
        "second time, in clipskip's own engine, for as long as it asks."
    )

    @classmethod
    def INPUT_TYPES(cls):
        drawn = {
            "default": 2,
            "min": 1,
            "max": 24,
            "tooltip": "The Clip Skip that you draw at: the number `uptake` is of it.",
        }
        return {"required": {**_asked(folder_paths.get_filename_list("loras")), "drawn_at": ("INT", drawn)}}

    def ask(self, checkpoint, lora, lora_weight, positive, negative, clip_skips, drawn_at):
        """A verdict in words, the share at `drawn_at`, the Clip Skip with the largest one, and curves."""
        if not positive.strip():
            raise SpecError("give a prompt that calls the LoRA; what it adds is measured on that", field="positive")
        advice, _ = _advice(checkpoint, lora, lora_weight, positive, negative, f"{clip_skips},{drawn_at}")
        prompted = advice.prompted
        (one,) = prompted.loras
        best = prompted.skips[max(range(len(prompted.skips)), key=lambda column: one.uptake[column])]
        share = one.uptake[prompted.skips.index(drawn_at)]
        chances = dict(dict(advice.lora_chances)[one.name])
        trained = max(chances, key=chances.get)
        told = [
            f"{one.name} is taken up most at Clip Skip {best}; at {drawn_at}, where you draw, {share:.0%} of what it adds is left."
        ]
        told += [
            f"100% is what it adds at {trained}, where it was most probably trained ({min(chances[trained], 0.99):.0%} sure).",
            "",
        ]
        if one.text_dead_from is not None:
            told.append(
                f"Its text part cannot act from Clip Skip {one.text_dead_from} on: the layers it changes are skipped."
            )
        by = {
            "taken up": one.uptake,
            "by the text encoder": one.by_text,
            "by the UNet": one.by_unet,
            "its whole effect": one.whole,
        }
        told.append(row("Clip Skip", [str(skip) for skip in prompted.skips]))
        told += [row(name, [f"{value:.0%}" for value in values]) for name, values in by.items()]
        told.append("Its effect, and that of its parts, is a share of the guidance.")
        plot = curves(f"{one.name} on {advice.model}: {positive}", prompted.skips, by, chosen=drawn_at)
        return "\n".join(told), float(share), str(best), _image(plot)


def _asked(loras: list[str]) -> dict:
    """What both nodes are told."""
    return {
        "checkpoint": (folder_paths.get_filename_list("checkpoints"),),
        "lora": (loras,),
        "lora_weight": ("FLOAT", {"default": 1.0, "min": -4.0, "max": 4.0, "step": 0.05}),
        "positive": TEXT,
        "negative": TEXT,
        "clip_skips": ("STRING", {"default": "1-4", "tooltip": "Those to compare."}),
    }


@torch.inference_mode(False)  # ComfyUI runs nodes in it, where a model that is opened cannot have its weights merged
def _advice(checkpoint, lora, weight, positive, negative, clip_skips):
    """Everything that clipskip finds out, and the model's family."""
    path = folder_paths.get_full_path_or_raise("checkpoints", checkpoint)
    loras = ()
    if lora != NONE:
        file = folder_paths.get_full_path_or_raise("loras", lora)
        loras = (LoraRef(name=str(file), text_encoder=weight, unet=weight),)
    request = Request(prompt=positive, negative_prompt=negative, loras=loras)
    settled = advise_by_family(Path(path), request, measured=False, allow_pickle=False)
    if settled is not None:
        return settled
    model = load_model(Path(path))
    skips = whole_skips(parse_skips(clip_skips), depth=model.facts.depth)
    wanted = Wanted(request=request, skips=tuple(sorted(skips)))
    return advise(model, wanted, Library.of_user()), model.facts.family


def _image(pixels: np.ndarray):
    return torch.from_numpy(pixels.astype(np.float32) / 255)[None]


class ClipSkipLayers:
    """What each layer makes of a prompt's words."""

    CATEGORY, FUNCTION = CATEGORY, "look"
    RETURN_TYPES, RETURN_NAMES = ("IMAGE", "STRING"), ("picture", "tables")
    OUTPUT_NODE = True
    DESCRIPTION = "How much each word has taken in of the others at each Clip Skip, as picture and tables."

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "clip": ("CLIP", {"tooltip": "With its LoRAs."}),
                "text": TEXT,
                "encoder": (["L", "G"], {"tooltip": "Of SDXL's two; SD 1.x and 2.x have one, which is L here."}),
            }
        }

    def look(self, clip, text, encoder):
        """Picture and tables."""
        family, names = family_of(clip)
        if encoder == "G" and len(names) == 1:
            raise SpecError(f"{family.label} has one text encoder; choose L", field="encoder")
        clip.encode_from_tokens_scheduled(clip.tokenize(""))
        layers = read_layers(
            read_clip(clip, family, names), text, encoder=names.index(encoder.lower()) if len(names) > 1 else 0
        )
        told = "\n".join(layer_lines(layers, model=family.label, depth=len(layers.skips)))
        return _image(layer_sheet(layers)), told


def layer_sheet(layers) -> np.ndarray:
    """Words down, Clip Skips across; the darker, the more the other words have moved the word."""
    width = LEFT + CELL_W * len(layers.skips) + 20
    sheet = Image.new("RGB", (width, CELL_H * (len(layers.words) + 2) + 10), (255, 255, 255))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for column, skip in enumerate(layers.skips):
        pen.text((LEFT + CELL_W * column + CELL_W // 2, CELL_H // 2), str(skip), (20, 20, 24), font, anchor="mm")
    for down, word in enumerate(layers.words, start=1):
        pen.text((LEFT - 10, CELL_H * down + CELL_H // 2), word.text[:24], (20, 20, 24), font, anchor="rm")
        for column, value in enumerate(word.context):
            dark = int(200 * min(max(value, 0.0), 1.0))
            place = (LEFT + CELL_W * column, CELL_H * down)
            pen.rectangle((*place, place[0] + CELL_W - 2, place[1] + CELL_H - 2), (240 - dark, 244 - dark // 2, 250))
            ink = (255, 255, 255) if dark > 120 else (20, 20, 24)
            pen.text((place[0] + CELL_W // 2, place[1] + CELL_H // 2), f"{value:.0%}", ink, font, anchor="mm")
    foot = "Clip Skip across; how far the other words move each word's vector, as a share of its length"
    pen.text(
        (10, CELL_H * (len(layers.words) + 1) + CELL_H // 2),
        foot,
        (90, 90, 98),
        ImageFont.load_default(11),
        anchor="lm",
    )
    return np.asarray(sheet)
