"""Routes of OpenAI's images and models, as far as its clients need them."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile

from clipskip.doors.http.openai.bodies import Asking, EditForm, GenerationBody, ModelBody
from clipskip.doors.http.ours import Name
from clipskip.doors.http.pictures import LOOK_S, Pixels, awaited, encoded
from clipskip.doors.http.reasons import reasons_of, refusal
from clipskip.doors.http.strict import StrictRoute
from clipskip.errors import NotFound, SpecError
from clipskip.image import hash_pixels, read_opacity, read_pixels, stretch
from clipskip.spec import MASK_MODES, Mask, Render, Start, range_of, render_infotext
from clipskip.sweep import Drawn, Extras, Job, Studio, seeded
from clipskip.weights import CheckpointFacts, FileKind, LibraryFile

Json = dict[str, Any]  # Any: OpenAI's own shapes
EVENTS = "text/event-stream"
MOST_FIELDS, LARGEST_FIELD = 40, 2**20
LATENT_PX = 8
LEAST_SIDE, MOST_SIDE = (int(px) for px in range_of("width"))
ANSWERS: dict[int | str, Json] = {200: {"content": {"application/json": {}, EVENTS: {"schema": {"type": "string"}}}}}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageOrder:
    """The pictures that a body asks for, with the files they need."""

    body: Asking
    kind: str
    """The start of its events' names."""
    facts: CheckpointFacts
    renders: list[Render]
    extras: Extras

    @property
    def about(self) -> Json:
        """Return the fields that all of its pictures share."""
        first = self.renders[0]
        return {
            "background": "opaque",
            "output_format": self.body.format,
            "quality": self.body.quality or "auto",
            "size": f"{first.width}x{first.height}",
        }


def openai_routes(studio: Studio) -> APIRouter:
    """Build /v1/images/generations, /v1/images/edits and /v1/models."""
    routes = APIRouter(prefix="/v1", tags=["OpenAI"], route_class=StrictRoute)
    _add_images(routes, studio)
    _add_models(routes, studio)
    return routes


def _add_images(routes: APIRouter, studio: Studio) -> None:
    @routes.post("/images/generations", response_model=None, responses=ANSWERS)
    async def generations(body: GenerationBody, request: Request) -> Json | Response:
        """Draw pictures of a prompt as base64. Without a Clip Skip the model's own is used."""
        order = await asyncio.to_thread(_planned, body, studio)
        return await _answered(order, studio, request)

    @routes.post("/images/edits", response_model=None, responses=ANSWERS, openapi_extra={"requestBody": _form()})
    async def edits(request: Request) -> Json | Response:
        """Draw a picture anew by img2img; `strength` says by how much."""
        async with request.form(max_files=4, max_fields=MOST_FIELDS, max_part_size=LARGEST_FIELD) as form:
            body = _edit_form(form)
            sent = await _sent_pictures(form)
        order = await asyncio.to_thread(_planned_edit, body, sent, studio)
        return await _answered(order, studio, request)


def _planned(body: Asking, studio: Studio) -> ImageOrder:
    facts = studio.models.facts(body.model)
    facts, base, extras = studio.plan(body.request(depth=facts.depth))
    return ImageOrder(body=body, kind="image_generation", facts=facts, renders=seeded(base, body.n or 1), extras=extras)


def _planned_edit(body: EditForm, sent: Mapping[str, bytes], studio: Studio) -> ImageOrder:
    """Return the order of pictures that begin at the one that was sent, at its own size if none is asked for."""
    pixels = read_pixels(sent["image"], field="image")
    pictures, mask = {hash_pixels(pixels): pixels}, None
    if "mask" in sent:
        opaque = read_opacity(sent["mask"], field="mask")
        if opaque.all():
            raise SpecError(
                "mask has no transparent part, so nothing would be redrawn; make the part to redraw transparent",
                field="mask",
            )
        pictures[hash_pixels(opaque)] = opaque
        mask = Mask(hash=hash_pixels(opaque), mode=MASK_MODES[1])
    height, width, _ = pixels.shape
    facts = studio.models.facts(body.model)
    asked = body.request(depth=facts.depth, usual=(_side(width), _side(height)))
    start = Start(hash=hash_pixels(pixels), strength=body.strength, mask=mask)
    facts, base, extras = studio.plan(replace(asked, start=start), pictures)
    return ImageOrder(body=body, kind="image_edit", facts=facts, renders=seeded(base, body.n or 1), extras=extras)


def _side(pixels: int) -> int:
    """Return a side that a picture can have, near this one."""
    return min(max(pixels // LATENT_PX * LATENT_PX, LEAST_SIDE), MOST_SIDE)


def _edit_form(form: FormData) -> EditForm:
    texts = {name: value for name, value in form.multi_items() if isinstance(value, str)}
    try:
        return EditForm.model_validate(texts)
    except ValidationError as error:
        raise refusal(reasons_of(error.errors())) from None


async def _sent_pictures(form: FormData) -> dict[str, bytes]:
    """Return the picture of a form, sent as `image` or `image[]`, and its mask."""
    files = [(name.removesuffix("[]"), value) for name, value in form.multi_items() if isinstance(value, UploadFile)]
    others = [name for name, _ in files if name not in ("image", "mask")]
    if others:
        raise SpecError(f"{others[0][:40]} cannot be used here; leave it out", field=others[0][:40])
    counts = Counter(name for name, _ in files)
    if counts["image"] != 1 or counts["mask"] > 1:
        raise SpecError(
            f"{counts['image']} pictures and {counts['mask']} masks were sent; send one as image", field="image"
        )
    return {name: await file.read() for name, file in files}


async def _answered(order: ImageOrder, studio: Studio, asker: Request) -> Json | Response:
    """Answer with the pictures, all at once or as events."""
    job = studio.draw(order.facts, order.renders, order.extras)
    if order.body.stream:
        return StreamingResponse(_events(order, job, studio, asker), media_type=EVENTS)
    drawn = await awaited(job, studio, asker=asker)
    images = await encoded(_with_settings(drawn), order.body.writing)
    return {"created": int(time.time()), "data": [{"b64_json": image} for image in images]} | order.about


def _with_settings(drawn: Sequence[Drawn]) -> list[tuple[Pixels, str]]:
    return [(drawing.pixels, render_infotext(drawing.render)) for drawing in drawn]


async def _events(order: ImageOrder, job: Job, studio: Studio, asker: Request) -> AsyncIterator[str]:
    """Yield up to `partial_images` previews of the first picture, evenly spread over its steps, then each picture."""
    try:
        async for event in _looks(order, job):
            yield event
        drawn = await awaited(job, studio, asker=asker)
    finally:
        if not job.ended.is_set():  # whoever asked has gone
            studio.queue.cancel(job)
    for image in await encoded(_with_settings(drawn), order.body.writing):
        yield _event(f"{order.kind}.completed", {"b64_json": image} | order.about)


async def _looks(order: ImageOrder, job: Job) -> AsyncIterator[str]:
    wanted, first = order.body.partial_images or 0, order.renders[0]
    shown = 0
    while shown < wanted and not job.ended.is_set() and 0 not in job.done:
        await asyncio.sleep(LOOK_S)
        look, step = job.previews.get(0), job.steps.get(0, (0, 0))[0]
        if look is not None and step >= first.steps * (shown + 1) / (wanted + 1):
            larger = await asyncio.to_thread(stretch, look, (first.width, first.height), upscale=None)
            (image,) = await encoded([(larger, "")], order.body.writing)
            yield _event(f"{order.kind}.partial_image", {"b64_json": image, "partial_image_index": shown} | order.about)
            shown += 1


def _event(kind: str, data: Json) -> str:
    payload = {"type": kind, "created_at": int(time.time())} | data
    return f"event: {kind}\ndata: {json.dumps(payload)}\n\n"


def _add_models(routes: APIRouter, studio: Studio) -> None:
    @routes.get("/models")
    def models() -> Json:
        """List the checkpoints."""
        files = {file.stem: file for file in reversed(studio.library.files(FileKind.CHECKPOINT))}
        return {"object": "list", "data": [_model_body(file).model_dump() for file in reversed(files.values())]}

    @routes.get("/models/{id}")
    def model(id: Name) -> ModelBody:
        """Return one checkpoint."""
        for file in studio.library.files(FileKind.CHECKPOINT):
            if file.stem == id:
                return _model_body(file)
        raise NotFound(f"there is no model {id[:80]!r}; GET /v1/models lists them", field="model")


def _model_body(file: LibraryFile) -> ModelBody:
    return ModelBody(id=file.stem, created=int(Path(file.path).stat().st_mtime))


def _form() -> Json:
    schema = EditForm.model_json_schema()
    schema["properties"] |= {name: {"type": "string", "format": "binary"} for name in ("image", "mask")}
    schema["required"] = [*cast("list[str]", schema["required"]), "image"]
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
