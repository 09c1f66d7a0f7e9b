"""Our own API: the server's state, how a text is read, what a file is, what each layer makes of a text."""

import asyncio
import json
from dataclasses import asdict, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import ValidationError
from safetensors.torch import save
from starlette.datastructures import UploadFile

from clipskip import __version__
from clipskip.advise import read_layers
from clipskip.doors.http.ours.bodies import (
    ColumnsBody,
    DialectBody,
    EncodeBody,
    InspectBody,
    LayersBody,
    PromptBody,
    SettingsBody,
    request_json,
)
from clipskip.doors.http.ours.listings import WEBP, Shelf, small_preview
from clipskip.doors.http.ours.views import skip_json
from clipskip.doors.http.strict import StrictRoute, read_body
from clipskip.doors.looking import look_at
from clipskip.doors.prompt_command import read_words
from clipskip.encode import summarize_layers, text_tensors
from clipskip.errors import ClipskipError, NotFound, SpecError
from clipskip.image import LATENT_MODES, UPSCALERS, infotexts_of
from clipskip.sample import SAMPLERS, SCHEDULES
from clipskip.spec import (
    AXES,
    Family,
    asked_negative_skip,
    asked_skip,
    conversion_table,
    layers_read,
    parse_columns,
    request_from_texts,
)
from clipskip.spec import Request as Asked
from clipskip.sweep import Studio
from clipskip.weights import FileKind, Library

AUTOMATIC = "Automatic"
KEPT = "private, max-age=600"
"""Cache rule of a preview picture, which its user may exchange."""
TENSORS = "application/safetensors"
Json = dict[str, Any]  # Any: rooms below say what is in it


def reading_routes(studio: Studio) -> APIRouter:
    """Build the routes that draw nothing."""
    routes = APIRouter(prefix="/v1", tags=["reading"], route_class=StrictRoute)
    _add_state(routes, studio)
    _add_texts(routes, studio)
    _add_skips(routes, studio)
    _add_vectors(routes, studio)
    _add_files(routes, studio)
    return routes


def _add_state(routes: APIRouter, studio: Studio) -> None:
    @routes.get("/status")
    def status() -> Json:
        """Return what the server is doing."""
        model, running = studio.models.current, studio.queue.running
        facts = model and model.facts
        said = facts and {
            "name": facts.ref.name,
            "hash": facts.ref.hash,
            "family": facts.family.label,
            "depth": facts.depth,
            "width": facts.width,
            "default_clip_skip": facts.default_clip_skip.from_end,
            "trained_clip_skip": facts.trained_clip_skip,
            "native_px": facts.native_px,
        }
        return {
            "version": __version__,
            "device": str(model.device) if model else None,
            "queue": {
                "waiting": studio.queue.waiting,
                "running": running and (running.id or "picture"),
                "limit": studio.queue.limit,
            },
            "model": said,
        }

    @routes.get("/samplers")
    def samplers() -> Json:
        """Sampling methods, schedule types and upscalers of a second pass that need no file, by A1111's names."""
        names = [{"name": sampler.name, "aliases": list(sampler.aliases)} for sampler in SAMPLERS]
        schedulers = [{"name": name, "label": name} for name in (AUTOMATIC, *SCHEDULES)]
        return {"samplers": names, "schedulers": schedulers, "upscalers": [*LATENT_MODES, *UPSCALERS]}

    @routes.get("/axes")
    def axes() -> Json:
        """List what a sweep may vary besides Clip Skip, with values as they are written."""
        return {"axes": [{"name": axis.name, "title": axis.title, "example": axis.example} for axis in AXES]}


def _on_its_model(asked: Asked, studio: Studio) -> Asked:
    """Return the request with its Clip Skip counted as its model's family counts, if that model is here."""
    try:
        family = studio.models.facts(asked.model).family
        read_as, negative = asked_skip(asked, family), asked_negative_skip(asked, family)
    except ClipskipError:
        return asked
    asked = replace(asked, negative_clip_skip=negative, negative_counted_by=None)
    return replace(asked, clip_skip=read_as.skip, counted_by=None) if read_as else asked


def _add_texts(routes: APIRouter, studio: Studio) -> None:
    @routes.post("/prompt")
    def prompt(body: PromptBody) -> Json:
        """Return how a prompt is read: tokens, chunks, weights, LoRAs, and what is unknown or cut."""
        read = read_words(
            body.prompt, steps=body.steps, negative=body.negative, folders=studio.library.folders, tool=body.tool
        )
        fields = read.fields
        files = fields["files"] or {}
        for kind in ("loras", "embeddings"):
            files[kind] = {name: path and Path(path).name for name, path in files.get(kind, {}).items()}
        return fields

    @routes.post("/settings", openapi_extra={"requestBody": _settings_body()})
    async def settings(request: Request) -> Response:
        """Read a settings block, or a picture that carries one, into fields."""
        if request.headers.get("content-type", "").startswith("multipart/form-data"):
            async with request.form(max_files=1, max_fields=1) as form:
                file = next((value for value in form.values() if isinstance(value, UploadFile)), None)
                if file is None:
                    raise SpecError("send one file", field="file")
                texts = await asyncio.to_thread(infotexts_of, await file.read(), file.filename or "the picture")
        else:
            try:
                texts = (SettingsBody.model_validate(await read_body(request)).text,)
            except ValidationError as error:
                raise RequestValidationError(error.errors(include_url=False)) from None
        asked = await asyncio.to_thread(lambda: _on_its_model(request_from_texts(texts), studio))
        unused = [list(pair) for pair in asked.unused]
        answer = {
            "request": request_json(asked),
            "unused": unused,
            "left_out": list(asked.defaulted),
            "text": texts[0],
        }
        half_pairs = json.dumps(answer, ensure_ascii=False).encode("utf-8", "backslashreplace")  # as JSON escapes
        return Response(half_pairs, media_type="application/json")


def _add_skips(routes: APIRouter, studio: Studio) -> None:
    @routes.post("/clip-skips")
    def clip_skips(body: ColumnsBody) -> Json:
        """Return the columns that a list stands for, each checked against the model."""
        facts = studio.models.facts(body.model)
        columns = parse_columns(body.text)
        for skip in columns:
            facts.check(skip)
        return {"clip_skips": [skip_json(skip) for skip in columns], "model": facts.ref.name}

    @routes.post("/dialects")
    def dialects(body: DialectBody) -> Json:
        """Return a Clip Skip in every tool's numbers."""
        family, translation = Family.parse(body.family), body.translated()
        rows = [
            {"tool": row.dialect.value, "label": row.dialect.label, "number": row.number, "note": row.note}
            for row in conversion_table(translation.skip, family=family, calls=body.steps)
        ]
        layers = [
            {"encoder": name, "depth": depth, "layer": layer}
            for name, depth, layer in layers_read(translation.skip, family=family)
        ]
        first = {"layer": layers[0]["layer"], "depth": layers[0]["depth"]}
        return {
            "clip_skip": skip_json(translation.skip),
            "remark": translation.remark,
            "layers": layers,
            "rows": rows,
            **first,
        }


def _add_vectors(routes: APIRouter, studio: Studio) -> None:
    @routes.post(
        "/encode",
        response_class=Response,
        responses={200: {"content": {TENSORS: {"schema": {"type": "string"}}, "application/json": {}}}},
    )
    def encode(body: EncodeBody, request: Request) -> Response:
        """Return a text's conditioning: one tensor clip_skip_N [tokens, width] for each, and SDXL's pooled vector; or its size
        and likeness as JSON."""
        facts = studio.models.facts(body.model)
        texts = studio.models.encode(facts, body.prompt, body.skips(depth=facts.depth))
        if "application/json" in request.headers.get("accept", ""):
            layers = {skip: vectors.tokens for skip, vectors in texts.items()}
            summary = {str(skip): asdict(layer) for skip, layer in summarize_layers(layers).items()}
            return Response(json.dumps(summary), media_type="application/json")
        about = {"prompt": body.prompt, "model": facts.ref.name, "model_sha256": facts.source.sha256}
        return Response(save(text_tensors(texts), about), media_type=TENSORS)

    @routes.post("/layers")
    def layers(body: LayersBody) -> Json:
        """Return what each layer of the text encoder makes of a text: likeness, context, nearest words."""
        facts = studio.models.facts(body.model)
        reading = studio.models.read(facts, lambda reader: read_layers(reader, body.prompt))
        return asdict(reading) | {"model": facts.ref.name, "depth": facts.depth}


def _add_files(routes: APIRouter, studio: Studio) -> None:
    shelf = Shelf(studio.library)

    @routes.get("/files", response_class=Response, responses={200: {"content": {"application/json": {}}}})
    def library() -> Response:
        """List models, LoRAs and embeddings by name. `reading` says how far new files are read, and is null when all
        are."""
        return Response(shelf.lists(), media_type="application/json")

    @routes.get("/files/{kind}/{name}/preview", response_class=Response, responses={200: {"content": {WEBP: {}}}})
    def preview(kind: Literal["checkpoint", "lora", "embedding"], name: str) -> Response:
        """Return the picture beside a file, small."""
        path = studio.library.find(name, FileKind[kind.upper()], allow_path=False)
        return Response(small_preview(studio.library, path), media_type=WEBP, headers={"Cache-Control": KEPT})

    @routes.post("/inspect")
    def inspect(body: InspectBody) -> Json:
        """Return what a file of the library is, by its name."""
        path = _find_file(studio.library, body.name)
        fields = look_at(path, allow_pickle=studio.allow_pickle).fields
        fields["identity"]["path"] = path.name
        return fields


def _find_file(library: Library, name: str) -> Path:
    """Return the file of this name, of whatever kind. Raises NotFound, for the kind that has the nearest name."""
    missing: dict[FileKind, NotFound] = {}
    for kind in (FileKind.LORA, FileKind.CHECKPOINT, FileKind.EMBEDDING):
        try:
            return library.find(name, kind, allow_path=False)
        except NotFound as error:
            missing[kind] = error
    kinds = {file.stem: kind for kind in missing for file in library.files(kind)}
    near = get_close_matches(Path(name).stem, kinds, n=1)
    if near:
        raise missing[kinds[near[0]]]
    raise NotFound(
        f"no model, LoRA or embedding called {name[:120]!r} in the model folders; GET /v1/files lists them",
        field="name",
    )


def _settings_body() -> Json:
    file = {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}, "required": ["file"]}
    return {
        "required": True,
        "content": {
            "application/json": {"schema": SettingsBody.model_json_schema()},
            "multipart/form-data": {"schema": file},
        },
    }
