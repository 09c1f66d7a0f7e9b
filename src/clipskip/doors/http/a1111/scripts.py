"""Scripts of A1111 and its extensions in a body: which of them do something."""

from collections.abc import Iterator, Mapping
from typing import Any

from clipskip.doors.http.reasons import Reason

NONE = ("", "none")
REFINER = "refiner"
UI_ONLY = frozenset({REFINER, "sampler", "seed", "api payload", "comments", "extra options", "hypertile"})
"""A1111's own, which do nothing through its API: they are there for its page (1.10 modules/scripts.py setup_for_ui_only), or
work by options."""
SAYS: Mapping[str, tuple[tuple[Any, ...], tuple[tuple[str, ...], ...]]] = {  # Any: a script's arguments
    "sampler": ((20, "DPM++ 2M", "Automatic"), (("steps",), ("sampler_name", "sampler_index"), ("scheduler",))),
    "seed": ((-1, False, -1, 0, 0, 0), (("seed",), (), ("subseed",), ("subseed_strength",))),
}
"""Arguments of the page's scripts that nobody has touched, and the body's fields that they repeat."""
SWITCHES = ("enabled", "enable", "is_enabled", "active")
"""The names of a settings unit's switch."""
SWITCH_SECOND = frozenset({"reactor", "roop"})
"""Scripts whose first argument is a picture and whose second is the switch."""
MODEL = "ad_model"
"""Names of the model that an ADetailer unit looks with; None stands for no model."""


def refused_scripts(sent: Mapping[str, Any]) -> Iterator[Reason]:  # Any: whatever the client sent
    """Yield why always-on scripts are refused: all that would do something."""
    for name, script in sent.items():
        plain, args = name.strip().casefold(), _args(script)
        args = args[1:] if plain in SWITCH_SECOND and isinstance(args, list) else args
        if plain not in UI_ONLY and not is_idle(args):
            why = f"alwayson_scripts: {name[:80]!r} is not here; switch it off or leave it out"
            yield Reason(field="alwayson_scripts", why=why)


def refiner_of(sent: Mapping[str, Any]) -> dict[str, Any]:  # Any: as above
    """Return the fields that the Refiner script of A1111's page stands for: checkpoint and the share of the noise at
    which it begins."""
    for name, script in sent.items():
        args = _args(script)
        named = isinstance(args, list) and len(args) > 1 and str(args[1] or "").casefold() not in NONE
        if name.strip().casefold() == REFINER and named and not is_idle(args[:1]):
            pairs = zip(("refiner_checkpoint", "refiner_switch_at"), args[1:], strict=False)
            return {field: value for field, value in pairs if value is not None}
    return {}


def unheard(sent: Mapping[str, Any], body: Mapping[str, Any]) -> Iterator[str]:  # Any: as above
    """Yield the page's scripts that disagree with the body's fields, which alone count."""
    for name, script in sent.items():
        usual, fields = SAYS.get(name.strip().casefold(), ((), ()))
        args = _args(script)
        if not fields or not isinstance(args, list) or tuple(args) == usual[: len(args)]:
            continue
        pairs = zip(args, fields, strict=False)
        if any(names and value not in [body.get(field) for field in names] for value, names in pairs):
            yield f"alwayson_scripts: {name[:80]}"


def _args(script: Any) -> Any:  # Any: as above
    return script.get("args", []) if isinstance(script, dict) else script


def is_idle(args: Any) -> bool:  # Any: as above
    """Return whether a script with these arguments does nothing: none, switched off, or only units that do nothing.

    Extensions begin their arguments with a switch, or have units of settings with one in each.
    """
    if isinstance(args, dict):
        return is_idle_unit(args)
    if not isinstance(args, list):
        return args is None
    if not args or args[0] is False:
        return True
    units = [arg for arg in args if isinstance(arg, dict)]
    others = [arg for arg in args if not isinstance(arg, dict | bool | None)]
    return all(map(is_idle_unit, units)) and (bool(units) or args[0] is None) and not others


def is_idle_unit(unit: Mapping[str, Any]) -> bool:  # Any: as above
    """Return whether a unit of settings is switched off, looks for nothing or is empty."""
    if not unit:
        return True
    if MODEL in unit:
        return str(unit[MODEL]).casefold() in NONE
    return any(unit.get(switch) in (False, 0, "false", "False") for switch in SWITCHES if switch in unit)
