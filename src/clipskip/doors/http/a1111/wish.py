"""From a body of A1111's to the pictures that it asks for, or to every reason why it is refused."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from fastapi import Request as HttpRequest
from pydantic import ValidationError

from clipskip.doors.http.a1111.bodies import LaxBody, PictureBody
from clipskip.doors.http.a1111.fields import NEUTRAL, SILENT, find_method, refused_eta, refused_fields
from clipskip.doors.http.a1111.option_table import Value
from clipskip.doors.http.a1111.options import ALIAS, CLIP_SKIP, DEFAULTS, MODEL, Options, read_skip, told
from clipskip.doors.http.a1111.plot import NAME as PLOT
from clipskip.doors.http.a1111.scripts import NONE, refused_scripts
from clipskip.doors.http.a1111.styles import Style, with_styles
from clipskip.doors.http.pictures import MOST_PICTURES
from clipskip.doors.http.reasons import Reason, log_line, reasons_of, refusal
from clipskip.doors.http.strict import read_body
from clipskip.errors import ClipskipError, SpecError
from clipskip.spec import ClipSkip, Request, request_from_text

LOG = logging.getLogger("clipskip.http")
PictureKind = TypeVar("PictureKind", bound=PictureBody)
Kind = TypeVar("Kind", bound=LaxBody)
RENAMED = {
    "prompt": "prompt",
    "negative_prompt": "negative_prompt",
    "steps": "steps",
    "cfg_scale": "cfg_scale",
    "seed": "seed",
    "width": "width",
    "height": "height",
    "subseed": "variation_seed",
    "subseed_strength": "variation_strength",
}
"""A body's fields that are a Request's own, under its names."""
BY_OPTION = {
    MODEL: "model",
    CLIP_SKIP: "clip_skip",
    "eta_noise_seed_delta": "ensd",
    "randn_source": "rng",
    "emphasis": "emphasis",
}
"""Options that are a Request's fields."""
SAMPLING = ("sampler_name", "sampler_index", "scheduler")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish(Generic[PictureKind]):
    """What a body asks for."""

    body: PictureKind
    request: Request
    options: Mapping[str, Value]
    """Those in force for it."""
    ignored: tuple[str, ...] = ()
    """What it sends and A1111 does not know, or leaves out."""
    notes: tuple[str, ...] = ()
    """What is obeyed here and not in A1111."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """What names in a body mean."""

    options: Options
    styles: Mapping[str, Style]


async def read_lax(request: HttpRequest, kind: type[Kind]) -> Kind:
    """The body of a request that draws nothing."""
    sent = await read_body(request)
    try:
        return kind.model_validate(sent)
    except ValidationError as error:
        raise refusal(reasons_of(error.errors())) from None


def read_wish(sent: Any, kind: type[PictureKind], shelf: Shelf) -> Wish[PictureKind]:  # Any: whatever the client sent
    """What the body asks for; every reason against it, where there is one, in one refusal."""
    if not isinstance(sent, dict):
        raise refusal([Reason(field="", why="the body is no JSON object; send one")])
    given = {name: value for name, value in sent.items() if value is not None}
    body, reasons = _validated(given, kind)
    reasons += [*refused_fields(given), *_sampling_reasons(body), *_script_reasons(body, txt2img=kind is PictureBody)]
    changes = shelf.options.read(body.override_settings)
    reasons += changes.reasons
    if body.count > MOST_PICTURES:
        why = f"batch_size {body.batch_size} x n_iter {body.n_iter} is {body.count} pictures; {MOST_PICTURES} is the most of one request"
        reasons.append(Reason(field="n_iter", why=why))
    request, ignored = Request(prompt=""), list[str]()
    notes: tuple[str, ...] = ()
    try:
        request, ignored = _request(body, shelf, changes.taken)
        skip, notes = _top_level_skip(body, shelf, model=request.model)
        if skip is not None and CLIP_SKIP not in changes.taken:
            request = replace(request, clip_skip=skip, counted_by=None)
    except ClipskipError as error:
        if error.field not in {reason.field for reason in reasons}:
            reasons.append(Reason.of(error, field=error.field or ""))
    if reasons:
        raise refusal(reasons)
    known = {*kind.model_fields, *NEUTRAL, *SILENT}
    ignored = [*(name for name in sent if name not in known), *changes.ignored, *ignored]
    _log(ignored, notes)
    return Wish(
        body=body,
        request=request,
        options={**DEFAULTS, **shelf.options.kept, **changes.taken},
        ignored=tuple(told(ignored)),
        notes=notes,
    )


def _log(ignored: list[str], notes: tuple[str, ...]) -> None:
    """One line of what is not as the client may think."""
    said = [f"ignored, as A1111 does: {', '.join(told(ignored))}"] if ignored else []
    if said or notes:
        LOG.info("%s", log_line("; ".join([*said, *notes])))


def _validated(given: Mapping[str, Any], kind: type[PictureKind]) -> tuple[PictureKind, list[Reason]]:  # Any: as above
    """The body, without the fields that are not valid, and why they are not."""
    try:
        return kind.model_validate(given), []
    except ValidationError as error:
        reasons = reasons_of(error.errors())
    bad = {reason.field.partition(".")[0] for reason in reasons}
    return kind.model_validate({name: value for name, value in given.items() if name not in bad}), reasons


def _sampling_reasons(body: PictureBody) -> list[Reason]:
    try:
        method, _, _ = find_method(body.sampler, body.scheduler)
    except SpecError as error:
        return [Reason.of(error, field=error.field or "sampler_name")]
    return list(refused_eta(body.eta, method))


def _script_reasons(body: PictureBody, *, txt2img: bool) -> list[Reason]:
    reasons = list(refused_scripts(body.alwayson_scripts))
    name = body.script_name.strip()
    if name.casefold() not in NONE and not (txt2img and name.casefold() == PLOT.casefold()):
        why = f"the script {name[:80]!r} is not here; leave it out, or use {PLOT} with txt2img"
        reasons.append(Reason(field="script_name", why=why))
    return reasons


def _request(body: PictureBody, shelf: Shelf, overrides: Mapping[str, Value]) -> tuple[Request, list[str]]:
    """The request: an infotext's, with the body's own fields over it, and over both the overrides; and what is left out."""
    options = {**DEFAULTS, **shelf.options.kept}
    base = Request(prompt="", **_by_option(options))
    ignored: list[str] = []
    given = set(PictureBody.model_fields)
    if body.infotext.strip():
        pasted = request_from_text(body.infotext)
        ignored = [f"infotext: {name}" for name, _ in pasted.unused]
        base = pasted if pasted.model or pasted.model_hash else replace(pasted, model=base.model)
        given = set(body.model_fields_set)
    changes: dict[str, Any] = {ours: getattr(body, name) for name, ours in RENAMED.items() if name in given}
    if given.intersection(SAMPLING):
        method, schedule, idle = find_method(body.sampler, body.scheduler)
        changes |= {"sampler": method, "scheduler": schedule}
        ignored += ["scheduler"] if idle else []
    changes |= _by_option(overrides)
    if "model" in changes:
        changes["model_hash"] = None
    request = replace(base, **changes)
    prompt, negative = with_styles(request.prompt, request.negative_prompt, body.styles, shelf.styles)
    return replace(request, prompt=prompt, negative_prompt=negative), ignored


def _by_option(options: Mapping[str, Value]) -> dict[str, Any]:  # Any: a Request's fields
    """What options say of a picture, by the Request's names."""
    found: dict[str, Any] = {ours: options[name] for name, ours in BY_OPTION.items() if name in options}
    if "model" in found:
        found["model"] = found["model"] or None
    if "clip_skip" in found:
        found["clip_skip"] = ClipSkip(found["clip_skip"])
    return found


def _top_level_skip(body: PictureBody, shelf: Shelf, *, model: str | None) -> tuple[ClipSkip | None, tuple[str, ...]]:
    """The Clip Skip that stands among the fields, where A1111 does not look for it; scripts that send it mean it."""
    found: list[tuple[str, ClipSkip]] = []
    for name in (CLIP_SKIP, ALIAS):
        value = getattr(body, name)
        if value is not None:
            found.append((name, read_skip(value, field=name, depth=shelf.options.depth(model))))
    if not found:
        return None, ()
    override = next(
        (body.override_settings[name] for name in (CLIP_SKIP, ALIAS) if name in body.override_settings), None
    )
    if override is not None:
        differ = [name for name, skip in found if skip.from_end != override]
        return None, tuple(f"{name} is overruled by the override_settings' Clip Skip {override}" for name in differ)
    name, skip = found[0]
    notes = [f"{name} {skip} is obeyed, though A1111 looks for it in override_settings only"]
    notes += [f"{other} {own} is overruled by {name}" for other, own in found[1:] if own != skip]
    return skip, tuple(notes)
