"""Our own API: which Clip Skip to use, and why."""

from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter

from clipskip.advise import Advice, Wanted, advise, advise_by_family, plain, whole_skips
from clipskip.doors.http.ours.bodies import AdviseBody
from clipskip.doors.http.strict import StrictRoute
from clipskip.errors import Busy
from clipskip.spec import LoraRef, Request, parse_skips
from clipskip.sweep import Job, Model, Studio, find_model
from clipskip.sweep.queue import Event


def advise_routes(studio: Studio) -> APIRouter:
    """POST /v1/advise."""
    routes = APIRouter(prefix="/v1", tags=["advise"], route_class=StrictRoute)

    @routes.post("/advise")
    def ask(body: AdviseBody) -> dict[str, Any]:
        """The verdict and everything that was measured; it waits its turn like a picture."""
        request = Request(
            prompt=body.prompt,
            negative_prompt=body.negative_prompt,
            model=body.model,
            loras=tuple(LoraRef(name=one.name, text_encoder=one.text_encoder, unet=one.unet) for one in body.loras),
            seed=body.seed,
        )
        path = find_model(request.model, hash=None, library=studio.library)
        settled = advise_by_family(path, request, allow_pickle=studio.allow_pickle)
        if settled is not None:
            return plain(settled[0], family=settled[1])
        facts, _, _ = studio.plan(request)
        wanted = Wanted(request=request, skips=whole_skips(parse_skips(body.clip_skips), depth=facts.depth))
        found: list[Advice] = []

        def find_out(model: Model) -> Iterator[Event]:
            found.append(advise(model, wanted, studio.library, allow_pickle=studio.allow_pickle))
            yield from ()

        job = studio.queue.put(Job(facts, find_out, total=1))
        job.ended.wait()
        if job.error is not None:
            raise job.error
        if not found:
            raise Busy("the server is closing; ask again when it is back")
        return plain(found[0], family=facts.family)

    return routes
