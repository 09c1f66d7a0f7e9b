"""OpenAI's own package, unmodified, against the server on a tiny random model."""

import base64
import io
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest
from PIL import Image
from served import served

from clipskip.doors.http import Punctual, build_app
from clipskip.image import picture_infotext
from clipskip.spec import parse_infotext
from clipskip.sweep import Studio
from clipskip.weights import Library

ASKED: dict[str, Any] = {"prompt": "a red frog", "model": "tiny", "size": "64x64"}
EXTRA = {"seed": 5, "steps": 2, "sampler": "Euler"}


@pytest.fixture(scope="module")
def client(library: Library, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    studio = Studio(tmp_path_factory.mktemp("out"), library)
    with (
        served(build_app(studio), http=Punctual) as address,
        openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as found,
    ):
        yield found
    studio.close()


def content(image: Any) -> bytes:
    return base64.b64decode(image.b64_json)


def settings(image: Any) -> dict[str, str]:
    text = picture_infotext(content(image), "it")
    assert text is not None
    return dict(parse_infotext(text).fields)


def opened(image: Any) -> Image.Image:
    return Image.open(io.BytesIO(content(image)))


def made(client: openai.OpenAI, *, extra: Any = None, **changes: Any) -> Any:
    return client.images.generate(**ASKED | changes, extra_body=EXTRA | (extra or {}))


def test_pictures_are_made_with_their_settings(client: openai.OpenAI) -> None:
    found = made(client, n=2, response_format="b64_json", extra={"clip_skip": 3})
    assert [settings(image)["Seed"] for image in found.data] == ["5", "6"]
    assert [settings(image)["Clip skip"] for image in found.data] == ["3", "3"]
    assert (found.output_format, found.size, found.background) == ("png", "64x64", "opaque")
    assert abs(found.created - time.time()) < 60


@pytest.mark.parametrize(
    ("quality", "steps"),
    [(None, 20), ("auto", 20), ("standard", 20), ("low", 10), ("medium", 20), ("high", 30), ("hd", 30)],
)
def test_quality_is_how_many_steps(client: openai.OpenAI, quality: Any, steps: int) -> None:
    found = made(client, **{"quality": quality} if quality else {}, extra={"steps": None})
    assert settings(found.data[0])["Steps"] == str(steps)
    assert found.quality == (quality or "auto")


@pytest.mark.parametrize(("format", "kind"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_the_format_is_the_one_that_is_asked_for(client: openai.OpenAI, format: Any, kind: str) -> None:
    best = made(client, output_format=format)
    least = made(client, output_format=format, output_compression=5)
    assert opened(best.data[0]).format == kind
    assert settings(best.data[0])["Seed"] == "5"
    smaller = len(content(least.data[0])) < len(content(best.data[0]))
    assert smaller is (format != "png")


@pytest.mark.parametrize(
    ("name", "value"),
    [("response_format", "url"), ("output_format", "gif"), ("background", "transparent"), ("style", "vivid"),
     ("size", "100000x8"), ("n", 65), ("frame_count", 3), ("quality", "best"), ("moderation", "none")],
)  # fmt: skip
def test_what_cannot_be_had_is_refused_by_name(client: openai.OpenAI, name: str, value: Any) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as refusal:
        made(client, **{name: value})
    assert isinstance(refusal.value.body, dict)
    assert (refusal.value.param or "width") in (name, "width")
    assert name in refusal.value.message or "width" in refusal.value.message


def test_what_changes_nothing_is_taken(client: openai.OpenAI) -> None:
    idle: Any = {"moderation": "low", "user": "me", "safety_identifier": "me", "background": "auto", "stream": False}
    assert made(client, **idle, style="natural").data[0].b64_json == made(client).data[0].b64_json


def test_a_stream_gives_looks_and_then_the_picture(client: openai.OpenAI) -> None:
    long = EXTRA | {"steps": 40}
    events = list(client.images.generate(**ASKED | {"size": "128x128"}, stream=True, partial_images=2, extra_body=long))
    *looks, last = events
    assert [event.type for event in looks] == ["image_generation.partial_image"] * len(looks)
    assert [event.partial_image_index for event in looks] == list(range(len(looks)))
    assert 1 <= len(looks) <= 2
    assert all(opened(look).size[0] >= 64 for look in looks)
    assert (last.type, last.size) == ("image_generation.completed", "128x128")
    assert settings(last)["Steps"] == "40"


def test_models_are_listed_and_found_by_name(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    model = client.models.retrieve("tiny")
    assert (model.id, model.object, model.created > 0) == ("tiny", "model", True)
    with pytest.raises(openai.NotFoundError, match="no model"):
        client.models.retrieve("dall-e-3")
    with pytest.raises(openai.NotFoundError, match="dall-e-3"):
        made(client, model="dall-e-3")


def picture(size: tuple[int, int] = (64, 72)) -> bytes:
    colours = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(colours).save(file, "PNG")
    return file.getvalue()


def edited(client: openai.OpenAI, *, extra: Any = None, **changes: Any) -> Any:
    asked = {"image": ("it.png", picture()), "prompt": "a red frog", "model": "tiny"} | changes
    return client.images.edit(**asked, extra_body=EXTRA | (extra or {}))


def test_a_picture_is_drawn_anew(client: openai.OpenAI) -> None:
    found = edited(client, n=2, extra={"strength": 0.5, "clip_skip": 2})
    said = settings(found.data[0])
    assert (said["Size-1"], said["Size-2"], said["Denoising strength"], said["Clip skip"]) == ("64", "72", "0.5", "2")
    assert [settings(image)["Seed"] for image in found.data] == ["5", "6"]
    other = edited(client, image=("it.png", picture((8, 8))), size="64x72", extra={"strength": 0.5, "clip_skip": 2})
    assert other.data[0].b64_json != found.data[0].b64_json


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"image": ("it.png", b"nothing")}, "image"), ({"image": [picture(), picture()]}, "image"),
     ({"mask": ("mask.png", picture())}, "mask"), ({"markup": ("it.png", picture())}, "markup"),
     ({"input_fidelity": "high"}, "input_fidelity"),
     ({"extra": {"strength": 2}}, "strength"), ({"response_format": "url"}, "response_format"),
     ({"extra": {"clip_skip": 13}}, "clip_skip")],
)  # fmt: skip
def test_an_edit_that_cannot_be_had_is_refused_by_name(client: openai.OpenAI, changes: Any, field: str) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as refusal:
        edited(client, **changes)
    assert refusal.value.param == field


def test_an_edit_may_be_streamed(client: openai.OpenAI) -> None:
    (event,) = client.images.edit(image=picture(), prompt="frog", model="tiny", stream=True, extra_body=EXTRA)
    assert (event.type, event.size) == ("image_edit.completed", "64x72")


def test_an_edit_draws_where_the_mask_is_transparent(client: openai.OpenAI) -> None:
    clear = Image.new("RGBA", (64, 72), (0, 0, 0, 255))
    clear.paste((0, 0, 0, 0), (32, 0, 64, 72))
    file = io.BytesIO()
    clear.save(file, "PNG")
    found = edited(client, mask=("mask.png", file.getvalue()))
    said = settings(found.data[0])
    assert (said["Mask mode"], said["Denoising strength"]) == ("Inpaint not masked", "0.75")
    assert found.data[0].b64_json != edited(client).data[0].b64_json
