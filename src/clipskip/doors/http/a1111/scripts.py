"""Scripts of A1111 and its extensions in a body: which of them do something."""

from collections.abc import Iterator, Mapping
from typing import Any

from clipskip.doors.http.reasons import Reason

NONE = ("", "none")
UI_ONLY = frozenset({"sampler", "seed", "api payload", "comments", "extra options", "hypertile"})
"""A1111's own, which do nothing through its API: they are there for its page, or work by options."""
SWITCHES = ("enabled", "enable", "is_enabled", "active")
"""What a unit of settings calls its switch."""
MODEL = "ad_model"
"""What a unit of ADetailer looks for; None is nothing."""


def refused_scripts(sent: Mapping[str, Any]) -> Iterator[Reason]:  # Any: whatever the client sent
    """Why always-on scripts are refused: all that would do something."""
    for name, script in sent.items():
        args = script.get("args", []) if isinstance(script, dict) else script
        if name.strip().casefold() not in UI_ONLY and not is_idle(args):
            why = f"alwayson_scripts: {name[:80]!r} is not here; switch it off or leave it out"
            yield Reason(field="alwayson_scripts", why=why)


def is_idle(args: Any) -> bool:  # Any: as above
    """Whether a script with these arguments does nothing: none, switched off, or only units that do nothing.

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
    """Whether a unit of settings is switched off, looks for nothing or is empty."""
    if not unit:
        return True
    if MODEL in unit:
        return str(unit[MODEL]).casefold() in NONE
    return any(unit.get(switch) in (False, 0, "false", "False") for switch in SWITCHES if switch in unit)
