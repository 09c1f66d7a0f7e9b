"""Every row of the table of settings has every door: an option of both commands, and a field of a sweep's body."""

from typing import Any

import pytest
import typer
from pydantic import ValidationError
from spec.test_table import another, changed, holder

from clipskip.doors.cli import app
from clipskip.doors.http.ours.bodies import SweepBody, request_json
from clipskip.doors.options import build_request
from clipskip.doors.rows import SIZES, help_of
from clipskip.errors import SpecError
from clipskip.spec import Hires, Mask, Request, Start, with_values
from clipskip.spec.table import HIRES, PICTURE, SETTINGS, Setting

ASKED = Request(prompt="swamp", start=Start(hash="ab" * 16, mask=Mask(hash="cd" * 16)))
NUMBERS = [row for row in SETTINGS if row.kind is not str]


def options(command: str) -> dict[str, Any]:
    group: Any = typer.main.get_command(app)
    return {flag: option for option in group.commands[command].params for flag in option.opts}


@pytest.mark.parametrize("command", ["sweep", "generate"])
@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: row.key)
def test_every_setting_is_an_option_with_its_help(command: str, row: Setting) -> None:
    option = options(command)[row.flag]
    assert option.help == (SIZES[row.flag][2] if row.flag in SIZES else help_of(row))


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: row.key)
def test_every_setting_that_is_typed_is_in_the_request(row: Setting) -> None:
    value = another(row, getattr(holder(changed(row), row.part), row.name))
    asked = with_values(ASKED if row.part in ("start", "mask") else Request(prompt="swamp"), {row.key: value})
    part = {"": asked, "hires": asked.hires, "start": asked.start, "mask": asked.start and asked.start.mask}[row.part]
    assert getattr(part, row.name) == value


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: row.key)
def test_every_setting_is_a_field_of_a_sweeps_body(row: Setting) -> None:
    value = another(row, None)
    body = SweepBody.model_validate({"prompt": "swamp", row.key: value})
    asked = body.changed(ASKED if row.part in ("start", "mask") else Request(prompt=""))
    assert request_json(asked)[row.key] == value


@pytest.mark.parametrize("row", NUMBERS, ids=lambda row: row.key)
def test_a_bodys_numbers_have_the_tables_range(row: Setting) -> None:
    for value in (row.low, row.high):
        SweepBody.model_validate({row.key: row.kind(value)})
    with pytest.raises(ValidationError):
        SweepBody.model_validate({row.key: row.kind(row.high + row.high / 4 + 1)})


def test_a_setting_of_a_second_pass_asks_for_one_and_keeps_the_others() -> None:
    asked = build_request("swamp", settings=None, typed={"hires_scale": 1.5, "hires_steps": 8})
    assert asked.hires == Hires(scale=1.5, steps=8)
    assert with_values(asked, {"hires_upscaler": "None"}).hires == Hires(scale=1.5, steps=8, upscaler="None")


@pytest.mark.parametrize(("typed", "words"), [({"denoising_strength": 0.5}, "--init"), ({"mask_blur": 2}, "--init")])
def test_a_setting_of_a_picture_that_is_not_given_is_an_error(typed: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        build_request("swamp", settings=None, typed=typed)


def test_the_rows_of_the_table_are_the_fields_of_its_dataclasses() -> None:
    assert all(hasattr(ASKED, row.name) for row in PICTURE) and all(hasattr(Hires(), row.name) for row in HIRES)
