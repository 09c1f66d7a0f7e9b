"""The guide's grid inside ComfyUI: its sampler draws, our grid and page show."""

import hashlib
import re
from pathlib import Path

import comfy.sample
import comfy.samplers
import comfy.utils
import folder_paths
import numpy as np
import torch
from PIL import Image

from clipskip.errors import SpecError
from clipskip.image import PageCell, draw_grid, write_page, write_png
from clipskip.spec import Infotext, format_infotext, parse_columns

from .nodes import CATEGORY, TEXT
from .reading import encode_text

MOST = 400
"""Pictures in one sweep."""


class ClipSkipSweep:
    """A prompt at each Clip Skip, seed by seed, without and with LoRAs."""

    CATEGORY, FUNCTION = CATEGORY, "draw"
    RETURN_TYPES, RETURN_NAMES = ("IMAGE", "IMAGE", "STRING"), ("grid", "pictures", "page")
    OUTPUT_IS_LIST = (False, True, False)
    OUTPUT_NODE = True
    DESCRIPTION = "Draws one prompt at each Clip Skip: a labelled grid, the pictures, and a page in the output folder to look through them."

    def __init__(self):
        self._objects: tuple = ()
        self._cells: dict[str, np.ndarray] = {}

    @classmethod
    def INPUT_TYPES(cls):
        side = {"default": 512, "min": 64, "max": 4096, "step": 8}
        return {
            "required": {
                "model": ("MODEL",),
                "clip": ("CLIP",),
                "vae": ("VAE",),
                "positive": TEXT,
                "negative": TEXT,
                "clip_skips": (
                    "STRING",
                    {"default": "1-5", "tooltip": "1-5, or 1,1.5,2, or for SDXL 2/1-8. For both prompts."},
                ),
                "seeds": ("STRING", {"default": "0", "tooltip": "One, or several with commas: a row for each."}),
                "steps": ("INT", {"default": 20, "min": 1, "max": 1000}),
                "cfg": ("FLOAT", {"default": 7.0, "min": 0.0, "max": 100.0, "step": 0.1}),
                "sampler_name": (comfy.samplers.KSampler.SAMPLERS,),
                "scheduler": (comfy.samplers.KSampler.SCHEDULERS,),
                "width": ("INT", side),
                "height": ("INT", side),
            },
            "optional": {
                "model_with_lora": ("MODEL", {"tooltip": "From a LoRA loader: a second row for each seed."}),
                "clip_with_lora": ("CLIP", {"tooltip": "From the same LoRA loader."}),
            },
        }

    def draw(
        self,
        model,
        clip,
        vae,
        positive,
        negative,
        clip_skips,
        seeds,
        model_with_lora=None,
        clip_with_lora=None,
        **settings,
    ):
        """Grid, pictures and page; pictures whose settings and models have not changed since the last run are kept."""
        if (model_with_lora is None) != (clip_with_lora is None):
            raise SpecError("connect both model_with_lora and clip_with_lora, or neither", field="lora")
        skips, numbers = parse_columns(clip_skips), _seeds(seeds)
        pairs = [("without LoRA", model, clip)]
        pairs += [("with LoRA", model_with_lora, clip_with_lora)] if model_with_lora is not None else []
        rows = [(name, seed, one, reads) for seed in numbers for name, one, reads in pairs]
        if len(rows) * len(skips) > MOST:
            raise SpecError(f"this sweep has {len(rows) * len(skips)} pictures; {MOST} is the most", field="clip_skip")
        self._forget((model, clip, vae, model_with_lora, clip_with_lora))
        bar = comfy.utils.ProgressBar(len(rows) * len(skips))
        texts = {
            id(reads): (encode_text(reads, positive, skips), encode_text(reads, negative, skips)) for *_, reads in pairs
        }
        drawn = []
        for name, seed, one, reads in rows:
            above, below = texts[id(reads)]
            drawn.append([])
            for skip in skips:
                key = repr((name, seed, str(skip), positive, negative, sorted(settings.items())))
                if key not in self._cells:
                    latent = _sample(one, seed, above[skip], below[skip], settings)
                    self._cells[key] = _pixels(vae.decode(latent))
                drawn[-1].append(self._cells[key])
                bar.update_absolute(sum(map(len, drawn)), preview=("JPEG", Image.fromarray(self._cells[key]), 512))
        labels = [f"{name}, seed {seed}" if len(numbers) > 1 else name for name, seed, *_ in rows]
        shown = {"prompt": positive, "negative": negative, **settings}
        grid, page = _shown(
            drawn, [f"Clip Skip {skip}" for skip in skips], labels, shown, seeds=[row[1] for row in rows]
        )
        return _image(grid), [_image(pixels) for row in drawn for pixels in row], str(page)

    def _forget(self, objects: tuple) -> None:
        """Pictures of other models, which ComfyUI gives anew when what is before this node changes."""
        same = len(objects) == len(self._objects) and all(a is b for a, b in zip(objects, self._objects, strict=True))
        if not same:
            self._cells, self._objects = {}, objects


def _seeds(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"[0-9]{1,20}", part) for part in parts):
        raise SpecError(
            f"seeds {text[:60]!r} are not whole numbers with commas between them, such as 1,2,3", field="seed"
        )
    return [int(part) for part in dict.fromkeys(parts)]


def _sample(model, seed: int, positive, negative, settings):
    """ComfyUI's KSampler."""
    empty = torch.zeros(1, 4, settings["height"] // 8, settings["width"] // 8)
    latent = comfy.sample.fix_empty_latent_channels(model, empty)
    return comfy.sample.sample(
        model,
        comfy.sample.prepare_noise(latent, seed),
        settings["steps"],
        settings["cfg"],
        settings["sampler_name"],
        settings["scheduler"],
        positive,
        negative,
        latent,
        seed=seed,
    )


def _pixels(image) -> np.ndarray:
    return (image[0].clamp(0, 1).cpu().numpy() * 255).round().astype(np.uint8)


def _image(pixels: np.ndarray):
    return torch.from_numpy(pixels.astype(np.float32) / 255)[None]


def _shown(drawn, columns: list[str], rows: list[str], settings: dict, *, seeds: list[int]) -> tuple[np.ndarray, Path]:
    """The grid's pixels, and the page with its pictures in a folder of the output folder."""
    digest = hashlib.sha256(
        repr((columns, rows, settings, [p.tobytes() for row in drawn for p in row])).encode()
    ).hexdigest()[:8]
    folder = Path(folder_paths.get_output_directory()) / "clipskip" / f"sweep-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    cells = []
    for number, (row, seed) in enumerate(zip(drawn, seeds, strict=True)):
        cells.append([])
        for name, pixels in zip(columns, row, strict=True):
            path = folder / f"row{number}-{re.sub(r'[^0-9.]+', '-', name).strip('-')}.png"
            text = _settings(settings, skip=name.removeprefix("Clip Skip "), seed=seed)
            write_png(path, pixels, text)
            cells[-1].append(PageCell(path=path, settings=text))
    below = _settings(settings, skip="", seed=None)
    grid = draw_grid(drawn, columns=columns, rows=rows, footer=below)
    write_png(folder / "grid.png", grid, below)
    page = folder / "index.html"
    page.write_text(write_page(cells, columns=columns, rows=rows, prompt=settings["prompt"], name=folder.name), "utf-8")
    return grid, page


def _settings(settings: dict, *, skip: str, seed: int | None) -> str:
    """The text that A1111 and clipskip read; ComfyUI's names of sampler and schedule stay as they are."""
    fields = {
        "Steps": str(settings["steps"]),
        "Sampler": settings["sampler_name"],
        "Schedule type": settings["scheduler"],
        "CFG scale": f"{settings['cfg']:g}",
        **({} if seed is None else {"Seed": str(seed)}),
        "Size-1": str(settings["width"]),
        "Size-2": str(settings["height"]),
        **({"Clip skip": skip} if skip else {}),
        "Emphasis": "ComfyUI",
    }
    return format_infotext(
        Infotext(prompt=settings["prompt"].strip(), negative_prompt=settings["negative"].strip(), fields=fields)
    )
