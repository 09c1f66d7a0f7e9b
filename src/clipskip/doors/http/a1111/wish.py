"""Read what a body of A1111's asks for, or every reason why it is refused."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from fastapi import Request as HttpRequest
from pydantic import ValidationError

from clipskip.doors.http.a1111.bodies import ImageBody, LaxBody, PictureBody
from clipskip.doors.http.a1111.fields import NEUTRAL, SILENT, find_method, refused_fields
from clipskip.doors.http.a1111.kept_options import (
    ALIAS,
    AUTOMATIC,
    CLIP_SKIP,
    DEFAULTS,
    MODEL,
    REFINED,
    Options,
    skip_option,
    told,
    with_skip_named,
)
from clipskip.doors.http.a1111.option_table import Value
from clipskip.doors.http.a1111.plot import NAME as PLOT
from clipskip.doors.http.a1111.scripts import NONE, refiner_of, refused_scripts, unheard
from clipskip.doors.http.a1111.styles import Style, with_styles
from clipskip.doors.http.pictures import MOST_PICTURES
from clipskip.doors.http.reasons import Reason, log_line, reasons_of, refusal
from clipskip.doors.http.strict import read_body
from clipskip.errors import ClipskipError, FileError, LoraError, PromptError, SpecError
from clipskip.sample import AUTOMATIC as OWN_SCHEDULE
from clipskip.sample import find_sampler
from clipskip.spec import (
    LATENT,
    LATENT_PX,
    PICTURE,
    SETTINGS,
    ClipSkip,
    EncoderSkips,
    Family,
    Hires,
    Request,
    request_from_text,
)

LOG = logging.getLogger("clipskip.http")
PictureKind = TypeVar("PictureKind", bound=PictureBody)
Kind = TypeVar("Kind", bound=LaxBody)
Made = TypeVar("Made")
A1111_NAMES = {row.key: row.a1111 for row in SETTINGS if row.a1111} | {
    "sampler": "sampler_name",
    "vae": "sd_vae",
    "refiner": "refiner_checkpoint",
}
"""A1111's names of our settings, where they differ."""
RENAMED = {"prompt": "prompt", "negative_prompt": "negative_prompt"} | {
    row.a1111 or row.name: row.name
    for row in PICTURE
    if (row.a1111 or row.name) in {*PictureBody.model_fields} - {"refiner_switch_at"}
}
"""A body's fields that a Request has too, by the Request's names."""
NOISE = ("eta", "s_churn", "s_tmin", "s_tmax", "s_noise")
"""Fields that come from the options if they are not sent."""
BY_OPTION = {
    MODEL: "model",
    CLIP_SKIP: "clip_skip",
    "eta_noise_seed_delta": "ensd",
    "randn_source": "rng",
    "emphasis": "emphasis",
    "sd_vae": "vae",
    "sd_noise_schedule": "noise_schedule",
    "sdxl_crop_top": "crop_top",
    "sdxl_crop_left": "crop_left",
    **{name: name for name in NOISE[1:]},
}
"""Options that are a Request's fields."""
SAME = ("", "none", "use same sampler", "use same scheduler", "use same checkpoint")
"""Values that stand for the first pass' own setting in a hires pass."""
REFINER_NOTE = "the script Refiner is obeyed, though A1111's API takes refiner_checkpoint and refiner_switch_at only"
SAMPLING = ("sampler_name", "sampler_index", "scheduler")
LORA = "lora"
"""The field of LoRAs that are missing, of which both passes' prompts may have some."""
LEFT_OUT = {
    "sampler_name": ("sampler_name", "sampler_index"),
    "sampler_index": ("sampler_index",),
    "script_args": ("script_name",),
    LORA: ("prompt", "styles", "hr_prompt"),
    "size": ("width", "height"),
}
"""Fields without which the rest is read again, the first that was sent, by the field in the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish(Generic[PictureKind]):
    """A body's request, with every name looked up."""

    body: PictureKind
    request: Request
    options: Mapping[str, Value]
    """The options in force for it."""
    ignored: tuple[str, ...] = ()
    """Fields that it sends and A1111 does not know, or ignores."""
    notes: tuple[str, ...] = ()
    """What is obeyed here and not in A1111."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent(Generic[PictureKind]):
    """The fields that a client sent and that are valid by themselves."""

    kind: type[PictureKind]
    fields: Mapping[str, Any]  # Any: whatever the client sent
    taken: Mapping[str, Value]
    """The options among them that are taken."""
    ignored: tuple[str, ...]
    notes: tuple[str, ...]

    def reason(self, error: ClipskipError) -> Reason:
        """Return the reason that an error gives, under the name by which the client sent the field."""
        field = in_a1111s_words(error).field or ""
        older = field == "sampler_name" and "sampler_name" not in self.fields and "sampler_index" in self.fields
        return Reason.of(error, field="sampler_index" if older else field)

    def without(self, field: str) -> "Sent[PictureKind] | None":
        """Return the rest without the field that a reason names; None if it is not among them."""
        names = LEFT_OUT.get(field, (field.partition(".")[0],))
        gone = next((name for name in names if name in self.fields or name in self.taken), None)
        if gone is None:
            return None
        fields = {name: value for name, value in self.fields.items() if name != gone}
        return replace(self, fields=fields, taken={name: value for name, value in self.taken.items() if name != gone})


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookups:
    """The options and styles that a body may name."""

    options: Options
    styles: Mapping[str, Style]


async def read_lax(request: HttpRequest, kind: type[Kind]) -> Kind:
    """Read the body of a request that draws nothing."""
    sent = await read_body(request)
    try:
        return kind.model_validate(sent)
    except ValidationError as error:
        raise refusal(reasons_of(error.errors())) from None


def read_all(
    sent: Any,  # Any: whatever the client sent
    kind: type[PictureKind],
    lookups: Lookups,
    make: Callable[[Wish[PictureKind]], Made],
) -> Made:
    """Return what `make` makes of the body's wish. Raises one refusal with every reason against it.

    A field that is refused is left out and the rest is read again, so that no reason hides another.
    """
    rest, reasons = _sorted(sent, kind, lookups)
    while True:
        try:
            wish = _wish(rest, lookups)
            made = make(wish)
            break
        except (SpecError, PromptError, FileError, LoraError) as error:
            reason = rest.reason(error)
            known = {earlier.why if reason.field == LORA else earlier.field for earlier in reasons}
            reasons += [reason] if (reason.why if reason.field == LORA else reason.field) not in known else []
            smaller = rest.without(reason.field)
            if smaller is None:
                raise refusal(reasons) from None
            rest = smaller
    if reasons:
        raise refusal(reasons)
    _log(wish)
    return made


def _sorted(
    sent: Any, kind: type[PictureKind], lookups: Lookups
) -> tuple[Sent[PictureKind], list[Reason]]:  # Any: as above
    """Return what is valid by itself of what a client sent, and why the rest is refused."""
    if not isinstance(sent, dict):
        raise refusal([Reason(field="", why="the body is not a JSON object; send one")])
    sent = with_skip_named(sent)
    given = {name: value for name, value in sent.items() if value is not None}
    scripts = given.get("alwayson_scripts", {})
    refined = refiner_of(scripts) if isinstance(scripts, dict) and "refiner_checkpoint" not in given else {}
    given |= refined
    body, reasons = _validated(given, kind)
    changes = lookups.options.read(body.override_settings)
    reasons += [*refused_fields(given), *_script_reasons(body, txt2img=kind is PictureBody), *changes.reasons]
    if body.count > MOST_PICTURES:
        why = f"batch_size {body.batch_size} x n_iter {body.n_iter} is {body.count} pictures; {MOST_PICTURES} is the most of one request"
        reasons.append(Reason(field="n_iter", why=why))
    unknown = (name for name in sent if name not in {*kind.model_fields, *NEUTRAL, *SILENT})
    rest = Sent(
        kind=kind,
        fields={name: given[name] for name in body.model_fields_set},
        taken=changes.taken,
        ignored=(*unknown, *changes.ignored, *unheard(body.alwayson_scripts, given)),
        notes=(REFINER_NOTE,) if refined else (),
    )
    return rest, reasons


def _wish(sent: Sent[PictureKind], lookups: Lookups) -> Wish[PictureKind]:
    """Return what the fields ask for. Raises an error for the first one that cannot be had."""
    body, taken = sent.kind.model_validate(sent.fields), sent.taken
    options = {**DEFAULTS, **lookups.options.kept, **taken}
    request, ignored = _request(body, lookups, taken)
    if body.refiner:
        lookups.options.check_model(body.refiner, field="refiner_checkpoint")
    if body.enable_hr and body.hr_checkpoint_name.casefold() not in SAME:
        lookups.options.check_same_model(body.hr_checkpoint_name, request.model)
    skip, notes = _top_level_skip(body, lookups, model=request.model, override=taken.get(CLIP_SKIP))
    if skip is not None:
        request = replace(request, clip_skip=skip, counted_by=None)
    request, by_family = _as_the_family_has_it(request, lookups, options)
    request, by_size = _in_whole_cells(request)
    return Wish(
        body=body,
        request=request,
        options=options,
        ignored=tuple(told([*sent.ignored, *ignored])),
        notes=(*notes, *by_family, *by_size, *sent.notes),
    )


def _in_whole_cells(request: Request) -> tuple[Request, tuple[str, ...]]:
    """Return the request at a size of whole latent cells, as A1111 cuts it, and what is to say of it."""
    sides = {name: int(getattr(request, name) or 0) for name in ("width", "height")}
    cut: dict[str, Any] = {  # Any: a Request's fields
        name: px // LATENT_PX * LATENT_PX for name, px in sides.items() if px % LATENT_PX
    }
    notes = tuple(
        f"{name} {sides[name]} is drawn as {px}, as A1111 draws it: sides are multiples of {LATENT_PX}"
        for name, px in cut.items()
    )
    return replace(request, **cut), notes


def _log(wish: Wish[PictureKind]) -> None:
    """Log in one line what is not as the client may think."""
    ignored_note = [f"ignored, as A1111 does: {', '.join(wish.ignored)}"] if wish.ignored else []
    if ignored_note or wish.notes:
        LOG.info("%s", log_line("; ".join([*ignored_note, *wish.notes])))


def _validated(given: Mapping[str, Any], kind: type[PictureKind]) -> tuple[PictureKind, list[Reason]]:  # Any: as above
    """Return the body without its invalid fields, and why those are invalid."""
    try:
        return kind.model_validate(given), []
    except ValidationError as error:
        reasons = reasons_of(error.errors())
    bad = {reason.field.partition(".")[0] for reason in reasons}
    return kind.model_validate({name: value for name, value in given.items() if name not in bad}), reasons


def _second_method(body: PictureBody) -> tuple[str | None, str | None]:
    """Return sampling method and schedule type of a hires pass, the latter also from the method's name ("DPM++ 2M
    Karras"); None stands for the first pass' own."""
    sampler = None if body.hr_sampler_name.casefold() in SAME else body.hr_sampler_name
    scheduler = None if body.hr_scheduler.casefold() in SAME else body.hr_scheduler
    if sampler or scheduler:
        try:
            first, _, _ = find_method(body.sampler, body.scheduler, begun=True)
            method, schedule, _ = find_method(sampler or first, scheduler or "", begun=True)
        except SpecError as error:
            raise SpecError(str(error), field=f"hr_{error.field}") from None
        if sampler:
            sampler, scheduler = method, scheduler or (None if schedule == OWN_SCHEDULE else schedule)
    return sampler, scheduler


def _script_reasons(body: PictureBody, *, txt2img: bool) -> list[Reason]:
    reasons = list(refused_scripts(body.alwayson_scripts))
    name = body.script_name.strip()
    if name.casefold() not in NONE and not (txt2img and name.casefold() == PLOT.casefold()):
        why = f"the script {name[:80]!r} is not here; leave it out, or use {PLOT} with txt2img"
        reasons.append(Reason(field="script_name", why=why))
    return reasons


def _request(body: PictureBody, lookups: Lookups, overrides: Mapping[str, Value]) -> tuple[Request, list[str]]:
    """Return the request: an infotext's, with the body's own fields over it, and over both the overrides; and what is left out."""
    options = {**DEFAULTS, **lookups.options.kept}
    base = Request(prompt="", **_by_option(options))
    ignored: list[str] = []
    given = set(PictureBody.model_fields)
    if body.infotext.strip():
        pasted = request_from_text(body.infotext)
        ignored = [f"infotext: {name}" for name, _ in pasted.unused]
        base = pasted if pasted.model or pasted.model_hash else replace(pasted, model=base.model)
        base = replace(base, start=None, hires=None if isinstance(body, ImageBody) else base.hires)
        given = set(body.model_fields_set)
    changes: dict[str, Any] = {ours: getattr(body, name) for name, ours in RENAMED.items() if name in given - {*NOISE}}
    if given.intersection(SAMPLING):
        method, schedule, idle = find_method(
            body.sampler, body.scheduler, begun=body.enable_hr or isinstance(body, ImageBody)
        )
        changes |= {"sampler": method, "scheduler": schedule}
        ignored += ["scheduler"] if idle else []
    changes |= _by_option(overrides)
    changes |= {name: value for name in NOISE if (value := getattr(body, name)) is not None}
    if "refiner_checkpoint" in given:
        changes |= {"refiner": body.refiner, "refiner_hash": None}
        changes |= {"refiner_switch_at": body.refiner_switch_at} if body.refiner else {}
    if "model" in changes:
        changes["model_hash"] = None
    if "clip_skip" in changes:
        changes["counted_by"] = None
    if "enable_hr" in given and not isinstance(body, ImageBody):
        changes["hires"] = _hires_of(body, str((options | dict(overrides))[REFINED])) if body.enable_hr else None
    elif base.hires and REFINED in overrides:
        changes["hires"] = replace(base.hires, refined=str(overrides[REFINED]))
    request = _with_own_eta(replace(base, **changes), options | dict(overrides))
    prompt, negative = with_styles(request.prompt, request.negative_prompt, body.styles, lookups.styles)
    return replace(request, prompt=prompt, negative_prompt=negative), ignored


def _with_own_eta(request: Request, options: Mapping[str, Value]) -> Request:
    """Return the request with the eta of the options. A1111 has two of them: DDIM's, and that of k-diffusion's
    samplers."""
    method, _ = find_sampler(request.sampler, request.scheduler)
    if request.eta is not None or method.eta is None:
        return request
    eta = options["eta_ancestral" if method.eta else "eta_ddim"]
    return replace(request, eta=float(str(eta)))


def _hires_of(body: PictureBody, refined: str) -> Hires:
    """Return the second pass that the body asks for."""
    sampler, scheduler = _second_method(body)
    sized = body.hr_resize_x or body.hr_resize_y  # the scale is not used then
    return Hires(
        upscaler=body.hr_upscaler or LATENT,
        scale=Hires().scale if sized else body.hr_scale,
        width=body.hr_resize_x,
        height=body.hr_resize_y,
        steps=body.hr_second_pass_steps,
        strength=body.denoising_strength,
        sampler=sampler,
        scheduler=scheduler,
        prompt=body.hr_prompt or None,
        negative_prompt=body.hr_negative_prompt or None,
        refined=refined,
    )


def in_a1111s_words(error: ClipskipError) -> ClipskipError:
    """Return the error with the field named as A1111 names it."""
    return type(error)(str(error), field=A1111_NAMES.get(error.field or "", error.field))


def _by_option(options: Mapping[str, Value]) -> dict[str, Any]:  # Any: a Request's fields
    """Return what options say of a picture, by the Request's names."""
    fields: dict[str, Any] = {ours: options[name] for name, ours in BY_OPTION.items() if name in options}
    if "model" in fields:
        fields["model"] = fields["model"] or None
    if "vae" in fields:
        fields |= {"vae": None if fields["vae"] in (AUTOMATIC, "") else fields["vae"], "vae_hash": None}
    if "clip_skip" in fields:
        fields["clip_skip"] = ClipSkip(fields["clip_skip"])
    return fields


def _top_level_skip(
    body: PictureBody, lookups: Lookups, *, model: str | None, override: Value
) -> tuple[ClipSkip | None, tuple[str, ...]]:
    """Return the Clip Skip sent among the fields, where A1111 does not look for it; scripts that send it mean it."""
    sent: list[tuple[str, ClipSkip]] = []
    for name in (CLIP_SKIP, ALIAS):
        value = getattr(body, name)
        if value is not None:
            sent.append((name, skip_option(value, field=name, depth=lookups.options.depth(model))))
    if not sent:
        return None, ()
    if override is not None:
        differ = [name for name, skip in sent if skip.from_end != override]
        return None, tuple(f"{name} is overruled by the override_settings' Clip Skip {override}" for name in differ)
    name, skip = sent[0]
    notes = [f"{name} {skip} is obeyed, though A1111 looks for it in override_settings only"]
    notes += [f"{other} {own} is overruled by {name}" for other, own in sent[1:] if own != skip]
    return skip, tuple(notes)


def _as_the_family_has_it(
    request: Request, lookups: Lookups, options: Mapping[str, Value]
) -> tuple[Request, tuple[str, ...]]:
    """Return the request with the Clip Skip that A1111 reads this model at, and what is to say of it.

    A1111 reads SD 2.x and SDXL at their own 2 whatever is set; 1.10's sdxl_clip_l_skip sets CLIP-L's alone.
    """
    facts, skip = lookups.options.facts(request.model), request.clip_skip
    if facts is None or facts.family is Family.SD1 or request.counted_by or not isinstance(skip, ClipSkip):
        return request, ()
    own = ClipSkip(facts.family.value.default_skip)
    if facts.family is Family.SDXL and options["sdxl_clip_l_skip"]:
        return replace(request, clip_skip=EncoderSkips.of(skip, own)), ()
    label = facts.family.value.label
    note = f"Clip Skip {skip} is left out: A1111 reads {label} at {own}" if skip != own else ""
    switch = ", unless sdxl_clip_l_skip is on" if facts.family is Family.SDXL else ""
    return replace(request, clip_skip=own), (note + switch,) if note else ()
