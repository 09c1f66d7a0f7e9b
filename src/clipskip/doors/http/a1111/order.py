"""The pictures that a body of A1111's comes to: where they begin, their renders and the files they need."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from clipskip.doors.http.a1111.answers import Json
from clipskip.doors.http.a1111.bodies import ImageBody
from clipskip.doors.http.a1111.option_table import Value
from clipskip.doors.http.a1111.plot import NAME, Plot, plan_cells, read_plot
from clipskip.doors.http.a1111.wish import Wish, in_a1111s_words
from clipskip.doors.http.pictures import Pixels, decoded
from clipskip.errors import ClipskipError, SpecError
from clipskip.image import hash_pixels, read_mask, read_pixels
from clipskip.spec import (
    INPAINT_AREAS,
    MASK_EDGES,
    MASK_MODES,
    MASKED_CONTENT,
    RESIZE_MODES,
    Mask,
    Render,
    Start,
)
from clipskip.sweep import Extras, Studio, doubts_of, seeded, warnings_of
from clipskip.weights import CheckpointFacts

NUMBERED = {"inpainting_mask_invert": MASK_MODES, "inpainting_fill": MASKED_CONTENT}
"""Fields of a mask whose values A1111 numbers."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Begun:
    """The start of each picture, and the pictures and masks by the hash of their pixels."""

    starts: tuple[Start, ...]
    pictures: Mapping[str, Pixels]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Order:
    """The pictures that a body asks for, with the files they need."""

    wish: Wish[Any]  # Any: txt2img's or img2img's
    facts: CheckpointFacts
    renders: list[Render]
    extras: Extras
    warnings: tuple[str, ...] = ()
    """What in its files and settings is probably a mistake."""
    plot: Plot | None = None
    """The sheet that the pictures are put on."""

    @classmethod
    def of(cls, wish: Wish[Any], studio: Studio, *, begun: Begun | None = None) -> "Order":  # Any: as above
        """Return the order that a wish comes to."""
        starts, pictures = (begun.starts, begun.pictures) if begun else ((), {})
        request = replace(wish.request, start=starts[0]) if starts else wish.request
        facts, base, extras = studio.plan(request, pictures)
        size = len(starts) if len(starts) > 1 else wish.body.batch_size
        renders = seeded(base, size * wish.body.n_iter)
        if starts:
            renders = [replace(render, start=starts[i % size % len(starts)]) for i, render in enumerate(renders)]
        odd = [*(doubt.text for doubt in doubts_of(request, base, facts, extras)), *warnings_of(request, extras)]
        return cls(wish=wish, facts=facts, renders=renders, extras=extras, warnings=tuple(odd))

    @classmethod
    def plotted(cls, wish: Wish[Any], studio: Studio) -> "Order":  # Any: as above
        """Return the order of an X/Y/Z plot's cells."""
        if wish.body.count > 1:
            raise SpecError(f"{NAME} draws one picture a cell; send a batch_size and n_iter of 1", field="batch_size")
        plot = read_plot(wish.body.script_args)
        facts, renders, extras = plan_cells(studio, plot.requests(wish.request))
        return cls(wish=wish, facts=facts, renders=renders, extras=extras, plot=plot)

    @property
    def parameters(self) -> Json:
        """The body as the answer repeats it."""
        body = self.wish.body
        pictures = isinstance(body, ImageBody) and not body.include_init_images
        repeated: Json = body.model_dump(exclude={"init_images", "mask"} if pictures else set())
        return repeated


def order_by(wish: Wish[Any], *, studio: Studio) -> Order:  # Any: as above
    """Return the order that a wish of either kind comes to."""
    if not isinstance(wish.body, ImageBody):
        plotted = wish.body.script_name.strip().casefold() == NAME.casefold()
        return Order.plotted(wish, studio) if plotted else Order.of(wish, studio)
    begun = _begun(wish.body, wish.options)
    order = Order.of(wish, studio, begun=begun)
    if begun is None:  # said last, so that it hides no other reason
        raise SpecError(
            "init_images has 0 pictures; send one, or up to batch_size of them, as base64", field="init_images"
        )
    return order


def _begun(body: ImageBody, options: Mapping[str, Value]) -> Begun | None:
    """Return where the pictures begin: one start for all, or one for each of a batch, as in A1111; None for no
    picture."""
    pictures: dict[str, Pixels] = {}
    mask = _mask(body, pictures, weight=float(str(options["inpainting_mask_weight"]))) if body.mask else None
    if len(body.init_images) > max(1, body.batch_size):
        raise SpecError(
            f"init_images has {len(body.init_images)} pictures; send one, or up to batch_size of them, as base64",
            field="init_images",
        )
    sent = [read_pixels(decoded(text, field="init_images"), field="init_images") for text in body.init_images]
    pictures |= {hash_pixels(pixels): pixels for pixels in sent}
    starts = tuple(_start_of(body, pixels, mask, options) for pixels in sent)
    return Begun(starts=starts, pictures=pictures) if starts else None


def _start_of(body: ImageBody, pixels: Pixels, mask: Mask | None, options: Mapping[str, Value]) -> Start:
    """Return where a picture begins."""
    same = body.resize_mode in (1, 2) and (mask is None or not mask.cropped) and _same_shape(body, pixels)
    noise = body.initial_noise_multiplier
    return Start(
        hash=hash_pixels(pixels),
        strength=body.denoising_strength,
        resize_mode=RESIZE_MODES[0 if same else body.resize_mode],
        noise_multiplier=float(str(options["initial_noise_multiplier"])) if noise is None else noise,
        mask=mask,
    )


def _same_shape(body: ImageBody, pixels: Pixels) -> bool:
    """Return whether cutting or filling would do no more than stretching does."""
    height, width, _ = pixels.shape
    return body.width is not None and body.height is not None and width * body.height == height * body.width


def _mask(body: ImageBody, pictures: dict[str, Pixels], *, weight: float) -> Mask:
    """Return the mask, with the values that A1111 numbers, and add its pixels to the pictures."""
    across, down = (body.mask_blur_x, body.mask_blur_y) if body.mask_blur is None else (body.mask_blur, body.mask_blur)
    for name, words in NUMBERED.items():
        if getattr(body, name) not in range(len(words)):
            raise SpecError(f"{name} is {getattr(body, name)}; use 0 to {len(words) - 1}", field=name)
    try:
        mask = Mask(
            hash="",
            blur=across,
            blur_y=None if down == across else down,
            edge=MASK_EDGES[0 if body.mask_round else 1],
            weight=weight,
            mode=MASK_MODES[body.inpainting_mask_invert],
            content=MASKED_CONTENT[body.inpainting_fill],
            area=INPAINT_AREAS[body.inpaint_full_res],
            padding=body.inpaint_full_res_padding,
        )
    except ClipskipError as error:
        across_alone = error.field == "mask_blur" and body.mask_blur is None
        raise type(error)(str(error), field="mask_blur_x") if across_alone else in_a1111s_words(error) from None
    drawn = read_mask(decoded(body.mask, field="mask"), field="mask", soft=not body.mask_round)
    pictures[hash_pixels(drawn)] = drawn
    return replace(mask, hash=hash_pixels(drawn))
