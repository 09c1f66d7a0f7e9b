"""Our own API: which Clip Skip to use, and why."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from fastapi import APIRouter

from clipskip.advise import Advice, Wanted, advise, advise_by_family, whole_skips
from clipskip.doors.advice_text import advice_json
from clipskip.doors.http.ours.bodies import AdviseBody
from clipskip.doors.http.ours.scores_api import MeasuringStopped
from clipskip.doors.http.ours.views import AdviceView, view_error
from clipskip.doors.http.strict import StrictRoute
from clipskip.errors import Busy, NotFound
from clipskip.image import write_bytes
from clipskip.spec import ClipSkip, LoraRef, Request, parse_skips
from clipskip.sweep import ENDED, Advance, Event, Job, Model, Record, Studio, find_model

ADVICE = "advice.json"
"""The file in a sweep's folder that holds its advice."""


def advise_routes(studio: Studio) -> APIRouter:
    """Build POST /v1/advise and the routes of the advice that is kept with a sweep."""
    routes = APIRouter(prefix="/v1", tags=["advise"], route_class=StrictRoute)
    _add_kept(routes, studio)

    @routes.post("/advise")
    def ask(body: AdviseBody) -> dict[str, Any]:
        """Return the verdict and everything that was measured. The request waits its turn as a picture does."""
        request = Request(
            prompt=body.prompt,
            negative_prompt=body.negative_prompt,
            model=body.model,
            loras=tuple(LoraRef(name=lora.name, text_encoder=lora.text_encoder, unet=lora.unet) for lora in body.loras),
            seed=body.seed,
        )
        path = find_model(request.model, hash=None, library=studio.library)
        settled = advise_by_family(path, request, allow_pickle=studio.allow_pickle)
        if settled is not None:
            return advice_json(settled[0], family=settled[1])
        facts, _, _ = studio.plan(request)
        wanted = Wanted(request=request, skips=whole_skips(parse_skips(body.clip_skips), depth=facts.depth))
        results: list[Advice] = []

        def find_out(model: Model) -> Iterator[Event]:
            results.append(advise(model, wanted, studio.library, allow_pickle=studio.allow_pickle))
            yield from ()

        job = studio.queue.put(Job(facts, find_out, total=1))
        job.ended.wait()
        if job.error is not None:
            raise job.error
        if not results:
            raise Busy("the server is closing; ask again when it is back")
        return advice_json(results[0], family=facts.family)

    return routes


def _add_kept(routes: APIRouter, studio: Studio) -> None:
    @routes.post("/sweeps/{id}/advice", status_code=202)
    def begin(id: str) -> AdviceView:
        """Begin to find out which Clip Skip of a sweep to use. The result is kept in the sweep's folder."""
        record = studio.history.find(id)
        if not record.has(ADVICE):
            studio.queue.put(_job(record, studio))
        return _advice_view(record, studio)

    @routes.get("/sweeps/{id}/advice")
    def advice(id: str) -> AdviceView:
        """Return how far finding out is, and its result."""
        return _advice_view(studio.history.find(id), studio)

    @routes.delete("/sweeps/{id}/advice")
    def cancel(id: str) -> AdviceView:
        """Stop before the next measurement."""
        record = studio.history.find(id)
        job = studio.queue.find(_id(record))
        if job is None:
            raise NotFound(f"nothing is being measured of the sweep {id}; begin with POST", field="sweep")
        studio.queue.cancel(job)
        return _advice_view(record, studio)


def _id(record: Record) -> str:
    """Return the job's name in the queue."""
    return f"advice:{record.id}"


def _job(record: Record, studio: Studio) -> Job:
    """Return the job that measures a sweep's prompt and the LoRAs of its last row, at its whole Clip Skips."""
    asked, loras = record.request, record.rows[-1][1]
    request = replace(asked, loras=loras, seed=max(asked.seed, 0), clip_skip=None)
    facts, _, _ = studio.plan(request)
    whole = [skip for skip in record.skips if isinstance(skip, ClipSkip) and not skip.fraction]
    skips = whole_skips(whole, depth=facts.depth) if len(whole) > 1 else (1, 2)
    wanted = Wanted(request=request, skips=skips)

    def find_out(model: Model) -> Iterator[Event]:
        def tell(rows: int, most: int) -> None:
            job.take(Advance(indices=(0,), step=rows, steps=most))
            if job.stop.is_set():
                raise MeasuringStopped

        try:
            advice = advise(model, wanted, studio.library, allow_pickle=studio.allow_pickle, tell=tell)
        except MeasuringStopped:
            return
        text = json.dumps(advice_json(advice, family=facts.family), ensure_ascii=False)
        write_bytes(record.folder / ADVICE, text.encode())
        yield from ()

    job = Job(facts, find_out, total=1, id=_id(record))
    return job


def _advice_view(record: Record, studio: Studio) -> AdviceView:
    job = studio.queue.find(_id(record))
    advice = json.loads((record.folder / ADVICE).read_text("utf-8")) if record.has(ADVICE) else None
    running = job is not None and job.state not in ENDED
    state = job.state if job and advice is None else "none" if advice is None else "done"
    return AdviceView(
        state=state,
        progress=job.share if job and running else float(advice is not None),
        eta_s=job.eta_s if job and running else None,
        error=view_error(job.error) if job and job.error else None,
        advice=advice,
    )
