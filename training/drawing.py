"""Draws a scene: the place, objects with shadow and rim, extras, then the style and the faults that its tags name."""

import functools
import io
import random

import numpy as np
import resvg_py
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps
from scenery import PLACE_MARKUP, gnome, moon, ogre
from world import ART, CHARACTERS, COLOURS, PLACES, SIZE, Scene

SVG = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
FIGURES = {"ogre": ogre, "gnome": gnome}


def render(scene: Scene) -> np.ndarray:
    """The picture, uint8 [height, width, 3]; objects are as large in wide and tall ones."""
    rng = random.Random(scene.seed)
    picture = place_picture(scene.background, rng.randrange(48), scene.width, scene.height).copy()
    if "moon" in scene.extras and scene.background != "underwater":
        _paste(picture, sprite("moon", None, "centre", 34), rng.choice((22, scene.width - 22)), 30)
    elif "moon" in scene.extras:
        _paste(picture, sprite("moon", None, "centre", 34), scene.width - 22, 24)
    _draw_extras(picture, scene.extras, rng)
    big = len(scene.items) == 1
    for item in scene.items:
        alone = (98, 106) if item.name in CHARACTERS else (76, 86)
        height = rng.randint(*alone) if big else rng.randint(56, 62)
        x = (PLACES[item.place] if big else {"left": 0.26, "right": 0.74}[item.place]) * scene.width + rng.uniform(
            -4, 4
        )
        bottom = scene.height - rng.randint(9, 16)
        shadow = Image.new("RGBA", picture.size)
        width = height * 0.36
        ImageDraw.Draw(shadow).ellipse((x - width, bottom - 6, x + width, bottom + 4), fill=(0, 0, 0, 80))
        picture.alpha_composite(shadow)
        look = sprite(item.name, item.colour, item.place, height)
        _paste(picture, look, x, bottom - height / 2)
    if "rain" in scene.extras:
        _draw_rain(picture, rng)
    pixels = _style(picture.convert("RGB"), scene.style)
    return np.asarray(_degrade(pixels, scene.quality, rng))


def _paste(picture: Image.Image, look: Image.Image, x: float, y: float) -> None:
    layer = Image.new("RGBA", picture.size)
    layer.paste(look, (round(x - look.width / 2), round(y - look.height / 2)))
    picture.alpha_composite(layer)


def rasterise(body: str, width: int, height: int) -> Image.Image:
    """SVG markup, 128 x 128, to RGBA at a size in px, stretched to it."""
    size = f'width="{width}" height="{height}" viewBox="0 0 128 128" preserveAspectRatio="none"'
    svg = f"<svg {SVG} {size}>{body}</svg>"
    return Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg)))).convert("RGBA")


@functools.lru_cache(4096)
def sprite(name: str, colour: str | None, place: str, height: int) -> Image.Image:
    """One object at a height in pixels, trimmed, with a light rim that keeps it legible on dark ground; characters look to the
    middle from their place."""
    figure = moon() if name == "moon" else FIGURES[name](place) if name in FIGURES else None
    body = figure or ART[name]
    whole = rasterise(body, 256, 256)
    whole = whole.crop(whole.getbbox())
    scale = min(height / whole.height, height * 1.15 / whole.width)
    width, height = max(1, round(whole.width * scale)), max(1, round(whole.height * scale))
    look = whole.resize((width, height), Image.Resampling.LANCZOS)
    look = recolour(look, COLOURS[colour]) if colour else look
    if name == "moon":
        return look
    framed = ImageOps.expand(look, 2, (0, 0, 0, 0))
    rim = framed.getchannel("A").filter(ImageFilter.MaxFilter(3)).filter(ImageFilter.GaussianBlur(0.6))
    rim = rim.point(lambda a: a * 0.55)
    under = Image.new("RGBA", framed.size, (245, 245, 230, 0))
    under.putalpha(rim)
    under.alpha_composite(framed)
    return under


def recolour(look: Image.Image, hue: int) -> Image.Image:
    """The object with its colourful parts at one hue; greys, whites and blacks stay."""
    alpha = look.getchannel("A")
    h, s, v = (np.asarray(c).astype(np.float32) for c in look.convert("RGB").convert("HSV").split())
    strong = np.clip((s - 40) / 40, 0, 1)
    h = np.where(strong > 0, hue * 255 / 360, h)
    s = np.where(strong > 0, np.clip(s * 1.1, 120, 255) * strong + s * (1 - strong), s)
    out = Image.merge("HSV", [Image.fromarray(np.clip(c, 0, 255).astype(np.uint8)) for c in (h, s, v)]).convert("RGBA")
    out.putalpha(alpha)
    return out


@functools.lru_cache(512)
def place_picture(name: str, variant: int, width: int = SIZE, height: int = SIZE) -> Image.Image:
    """One of the 48 looks of a place, RGBA."""
    return rasterise(PLACE_MARKUP[name](random.Random(f"{name}{variant}")), width, height)


def _draw_extras(picture: Image.Image, extras: tuple[str, ...], rng: random.Random) -> None:
    """Reeds and fireflies, behind the objects so that both can be told."""
    layer = Image.new("RGBA", picture.size)
    pen, (width, height) = ImageDraw.Draw(layer), picture.size
    if "reeds" in extras:
        for side in (rng.uniform(8, 18), width - rng.uniform(8, 18)):
            for i in range(5):
                x, top = side + 6.5 * (i - 2) + rng.uniform(-2, 2), height - rng.uniform(50, 86)
                pen.line((x + rng.uniform(-3, 3), height, x, top), fill=(88, 142, 52, 255), width=3)
                pen.rounded_rectangle((x - 3, top - 4, x + 3, top + 16), 3, fill=(124, 72, 30, 255))
    if "fireflies" in extras:
        for _ in range(10 * width * height // SIZE**2):
            x, y = rng.uniform(6, width - 6), rng.uniform(8, height - 36)
            for radius, alpha in ((7.5, 50), (5, 110), (2.8, 255)):
                dot = Image.new("RGBA", picture.size)
                ImageDraw.Draw(dot).ellipse(
                    (x - radius, y - radius, x + radius, y + radius), fill=(255, 240, 110, alpha)
                )
                layer.alpha_composite(dot)
    picture.alpha_composite(layer)


def _draw_rain(picture: Image.Image, rng: random.Random) -> None:
    layer = Image.new("RGBA", picture.size)
    pen = ImageDraw.Draw(layer)
    width, height = picture.size
    for _ in range(34 * width * height // SIZE**2):
        x, y = rng.uniform(-10, width + 10), rng.uniform(-10, height)
        pen.line((x, y, x - 4, y + 13), fill=(190, 220, 250, 210), width=1)
    picture.alpha_composite(layer)


def _style(picture: Image.Image, style: str | None) -> Image.Image:
    """The picture as a blueprint: its greys from blue to white, with a trace of its colours as pencils leave it."""
    if style is None:
        return picture
    tones = ImageOps.colorize(ImageOps.autocontrast(picture.convert("L")), (22, 62, 140), (235, 245, 255))
    return Image.blend(tones, picture, 0.12)


def _degrade(picture: Image.Image, quality: str | None, rng: random.Random) -> Image.Image:
    """The picture as its bad tag says it."""
    if quality == "poor":
        return Image.blend(picture, picture.filter(ImageFilter.GaussianBlur(1)), rng.uniform(0, 0.7))
    if quality == "blurry":
        return picture.filter(ImageFilter.GaussianBlur(rng.uniform(2.2, 3.2)))
    if quality == "lowres":
        scale = rng.choice((18, 21, 25)) / SIZE
        few = round(picture.width * scale), round(picture.height * scale)
        return picture.resize(few, Image.Resampling.BOX).resize(picture.size, Image.Resampling.NEAREST)
    if quality == "monochrome":
        return picture.convert("L").convert("RGB")
    if quality == "jpeg artifacts":
        stored = io.BytesIO()
        picture.save(stored, "JPEG", quality=rng.randint(3, 6))
        return Image.open(stored).convert("RGB")
    if quality == "sketch":
        edges = ImageOps.invert(picture.convert("L").filter(ImageFilter.FIND_EDGES))
        edges = edges.filter(ImageFilter.GaussianBlur(0.4))
        return ImageOps.colorize(ImageOps.autocontrast(edges), (60, 55, 50), (244, 240, 228))
    if quality == "watermark":
        spot, word = (
            (rng.uniform(8, 40), rng.choice((8, picture.height - 28))),
            rng.choice(("SAMPLE", "@artist", "DEMO", "Stock")),
        )
        font, white, grey = ImageFont.load_default(19), (255, 255, 255), (40, 40, 40)
        ImageDraw.Draw(picture).text(spot, word, white, font, stroke_width=1, stroke_fill=grey)
    return picture
