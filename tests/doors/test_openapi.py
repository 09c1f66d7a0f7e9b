"""The server against its own description: whatever fits it, or nearly fits it, gets an answer that the description has."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from clipskip.doors.http import build_app
from clipskip.sweep import Studio
from clipskip.weights import Library

HERE = {"host": "127.0.0.1"}
PATIENCE_S = 120
"""On a machine that is busy with something else."""
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    """A server whose folders hold no model: what asks for pictures is refused, and nothing is drawn."""
    studio = Studio(tmp_path_factory.mktemp("out"), Library((tmp_path_factory.mktemp("models"),)), limit=2)
    yield build_app(studio)
    studio.close()


@pytest.mark.parametrize(
    ("mode", "examples"),
    [
        (GenerationMode.NEGATIVE, 2),
        *(pytest.param(mode, 12, marks=pytest.mark.slow) for mode in GenerationMode),
    ],
)
def test_every_answer_is_one_that_the_description_has(app: FastAPI, mode: GenerationMode, examples: int) -> None:
    """So many requests that fit each operation's description, or that do not."""
    described = schemathesis.openapi.from_asgi("/openapi.json", app, headers=HERE)
    faults: dict[str, FailureGroup] = {}
    for operation in (found.ok() for found in described.get_all_operations()):

        @settings(max_examples=examples, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: schemathesis.Case) -> None:
            case.call_and_validate(headers=HERE, checks=CHECKS, timeout=PATIENCE_S)

        if mode is GenerationMode.NEGATIVE and not operation.body:
            continue  # any text is an id, and what takes nothing cannot be asked wrongly
        try:
            ask()
        except FailureGroup as fault:
            faults[operation.label] = fault
    assert not faults, "\n\n".join(f"{label}: {fault}" for label, fault in faults.items())


def test_the_description_is_made_beside_the_event_loop(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first time takes half a second, in which the loop answers nobody."""
    made = app.openapi
    threads: list[str] = []

    def watched() -> dict[str, Any]:
        threads.append(threading.current_thread().name)
        return made()

    monkeypatch.setattr(app, "openapi", watched)
    described = TestClient(app, base_url="http://127.0.0.1").get("/openapi.json").json()
    assert "/sdapi/v1/txt2img" in described["paths"]
    assert threads == ["AnyIO worker thread"]
