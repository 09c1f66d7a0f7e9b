"""Our own API: fetching a model by its link, on servers started with --allow-fetch."""

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
    """A model to fetch."""

    link: str = Field(min_length=1, max_length=500, description="A Civitai or Hugging Face link, an AIR, or a hash.")


class FetchedView(BaseModel):
    """A model that is here now."""

    name: str
    """The stem of its file, by which prompts and settings call it."""
    title: str
    was_here: bool
    notes: list[str]


def fetch_routes(studio: Studio, *, allowed: bool) -> APIRouter:
    """Build the route that fetches. It refuses, and says what to do, if the server's owner has not allowed it."""
    routes = APIRouter(prefix="/v1", tags=["fetching"], route_class=StrictRoute)

    @routes.post("/fetch")
    def fetch_model(body: FetchBody) -> FetchedView:
        """Fetch a model from Civitai or Hugging Face, verify it and put it into the folder of its kind."""
        if not allowed:
            raise HTTPException(403, "this server fetches nothing; its owner can start it with --allow-fetch")
        link = parse_link(body.link) or parse_bare(body.link)
        if link is None:
            raise SpecError(f"{body.link[:120]!r} is not a link, AIR, hash or owner/repo; send one", field="link")
        fetched = fetch(link, library=studio.library, allow_pickle=studio.allow_pickle)
        return FetchedView(
            name=fetched.path.stem, title=fetched.title, was_here=fetched.was_here, notes=list(fetched.notes)
        )

    return routes
