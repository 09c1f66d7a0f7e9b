"""Our own API: fetching a model by its link, on servers that were started with --allow-fetch."""

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from clipskip.doors.http.ours.bodies import Body
from clipskip.doors.http.strict import StrictRoute
from clipskip.errors import SpecError
from clipskip.fetch import fetch
from clipskip.spec import parse_bare, parse_link
from clipskip.sweep import Studio


class FetchBody(Body):
    """What to fetch."""

    link: str = Field(min_length=1, max_length=500, description="A Civitai or Hugging Face link, an AIR, or a hash.")


class FetchedView(BaseModel):
    """A model that is here now."""

    name: str
    """Stem of its file, by which prompts and settings call it."""
    title: str
    was_here: bool
    notes: list[str]


def fetch_routes(studio: Studio, *, allowed: bool) -> APIRouter:
    """The route that fetches; it refuses, and says what to do, where the server's owner has not allowed it."""
    routes = APIRouter(prefix="/v1", tags=["fetching"], route_class=StrictRoute)

    @routes.post("/fetch")
    def fetch_model(body: FetchBody) -> FetchedView:
        """Fetches a model from Civitai or Hugging Face, verified, into the folder of its kind."""
        if not allowed:
            raise HTTPException(403, "this server fetches nothing; its owner can start it with --allow-fetch")
        link = parse_link(body.link) or parse_bare(body.link)
        if link is None:
            raise SpecError(f"{body.link[:120]!r} is no link, AIR, hash or owner/repo", field="link")
        found = fetch(link, library=studio.library, allow_pickle=studio.allow_pickle)
        return FetchedView(name=found.path.stem, title=found.title, was_here=found.was_here, notes=list(found.notes))

    return routes
