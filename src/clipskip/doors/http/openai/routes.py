"""OpenAI's images and models, as far as its clients need them."""

import asyncio
import re
import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import Field, StringConstraints

from clipskip.doors.http.ours import Body, Layer, Name, Text, skip_of
from clipskip.doors.http.pictures import MOST_PICTURES, draw_all, encoded
from clipskip.doors.http.strict import StrictRoute
from clipskip.errors import SpecError
from clipskip.spec import Request as Asked
from clipskip.sweep import Studio
from clipskip.weights import FileKind


class ImageBody(Body):
    """OpenAI's body, and what Stable Diffusion has beside it."""

    prompt: Text
    model: Name | None = None
    n: Annotated[int, Field(ge=1, le=MOST_PICTURES)] | None = 1
    size: Annotated[str, StringConstraints(max_length=20)] | None = None
    response_format: Literal["b64_json"] | None = "b64_json"
    output_format: Literal["png"] | None = "png"
    quality: Literal["auto", "standard"] | None = None
    style: Literal["natural"] | None = None
    background: Literal["auto", "opaque"] | None = None
    user: Annotated[str, StringConstraints(max_length=1000)] | None = None
    negative_prompt: Text = ""
    clip_skip: Layer | None = None
    negative_clip_skip: Layer | None = None
    steps: Annotated[int, Field(ge=1, le=150)] = 20
    cfg_scale: Annotated[float, Field(ge=1, le=30)] = 7.0
    sampler: Name = "Euler a"
    scheduler: Name = "Automatic"
    seed: Annotated[int, Field(ge=-1, le=2**64 - 1)] = -1

    def request(self, *, depth: int) -> Asked:
        """What is asked of each picture, of a model with so many layers."""
        width, height = _sides(self.size)
        skip, negative = self.clip_skip, self.negative_clip_skip
        return Asked(
            prompt=self.prompt,
            negative_prompt=self.negative_prompt,
            model=self.model,
            clip_skip=None if skip is None else skip_of(skip, depth=depth, field="clip_skip"),
            negative_clip_skip=None if negative is None else skip_of(negative, depth=depth, field="negative_clip_skip"),
            steps=self.steps,
            cfg_scale=self.cfg_scale,
            sampler=self.sampler,
            scheduler=self.scheduler,
            seed=self.seed,
            width=width,
            height=height,
        )


def openai_routes(studio: Studio) -> APIRouter:
    """/v1/images/generations and /v1/models."""
    routes = APIRouter(prefix="/v1", tags=["OpenAI"], route_class=StrictRoute)

    @routes.post("/images/generations")
    async def generations(body: ImageBody, request: Request) -> dict[str, Any]:
        """Pictures of a prompt as base64; without a Clip Skip at the model's own."""
        facts = await asyncio.to_thread(studio.models.facts, body.model)
        drawn = await draw_all(studio, body.request(depth=facts.depth), body.n or 1, asker=request)
        return {"created": int(time.time()), "data": [{"b64_json": one} for one in await encoded(drawn)]}

    @routes.get("/models")
    def models() -> dict[str, Any]:
        """The checkpoints."""
        names = dict.fromkeys(found.stem for found in studio.library.files(FileKind.CHECKPOINT))
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "clipskip"} for name in names]
        return {"object": "list", "data": data}

    return routes


def _sides(size: str | None) -> tuple[int | None, int | None]:
    if size is None or size == "auto":
        return None, None
    found = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", size)
    if found is None:
        raise SpecError(f"size {size!r} is not width x height; write it as 512x768, or auto", field="size")
    return int(found[1]), int(found[2])
