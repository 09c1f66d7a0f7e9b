"""Pictures carry their settings: written whole or not at all, and read from whatever tool made them."""

import errno
import gzip
import io
import json
import os
import stat
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from clipskip.errors import ClipskipError, DamagedFile, FileError, NotFound, OutputError, SpecError, WrongKind
from clipskip.image import read_infotext, write_bytes, write_png
from clipskip.spec import ClipSkip, request_from_text

TEXT = "a swamp\nNegative prompt: lowres\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 16x8, Clip skip: 2"
PIXELS = np.arange(16 * 8 * 3, dtype=np.uint8).reshape(8, 16, 3)
USER_COMMENT, EXIF_FOLDER, SOFTWARE = 0x9286, 0x8769, 0x0131


def png(path: Path, **texts: str) -> Path:
    """A small PNG with these text chunks."""
    info = PngImagePlugin.PngInfo()
    for key, value in texts.items():
        info.add_text(key, value)
    Image.fromarray(PIXELS).save(path, "PNG", pnginfo=info)
    return path


def with_comment(path: Path, comment: bytes | str) -> Path:
    """A small picture with an EXIF UserComment."""
    Image.fromarray(PIXELS).save(path, exif=exif_with(comment))
    return path


def exif_with(comment: bytes | str) -> Image.Exif:
    exif = Image.Exif()
    exif[SOFTWARE] = "test"  # Pillow leaves EXIF without a tag of its own out of PNG
    exif.get_ifd(EXIF_FOLDER)[USER_COMMENT] = comment
    return exif


def test_pixels_and_settings_come_back(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", PIXELS, TEXT)
    assert read_infotext(tmp_path / "a.png") == TEXT
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), PIXELS)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: text.strip("\0 \r\n\t")))
def test_any_text_comes_back(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.png"
    write_png(path, PIXELS, text)
    assert read_infotext(path) == text


@pytest.mark.parametrize(("text", "chunk"), [("plain é", b"tEXt"), ("日本語", b"iTXt")])
def test_latin_1_is_text_and_the_rest_international_text_as_in_a1111(tmp_path: Path, text: str, chunk: bytes) -> None:
    write_png(tmp_path / "a.png", PIXELS, text)
    assert chunk + b"parameters\0" in (tmp_path / "a.png").read_bytes()


def test_a_picture_may_be_read_by_whom_the_umask_lets(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_png(tmp_path / "a.png", PIXELS, TEXT)
        os.umask(0o077)
        write_png(tmp_path / "b.png", PIXELS, TEXT)
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a.png", "b.png")]
    assert modes == [0o644, 0o600]


def test_a_picture_that_is_there_is_replaced_whole(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", PIXELS, "old")
    write_png(tmp_path / "a.png", PIXELS, TEXT)
    assert read_infotext(tmp_path / "a.png") == TEXT and os.listdir(tmp_path) == ["a.png"]


def test_a_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No such file or directory; choose another folder"):
        write_png(tmp_path / "no" / "a.png", PIXELS, TEXT)


def test_a_file_in_a_folders_place_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        write_png(tmp_path / "file" / "a.png", PIXELS, TEXT)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_folder_is_an_output_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="choose another folder"):
            write_png(tmp_path / "a.png", PIXELS, TEXT)
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, r"needs [\d,]+ bytes, and [\d,]+ are free"),
        (errno.EROFS, "choose another"),
        (errno.EACCES, "choose"),
    ],
)
def test_a_full_or_read_only_disk_leaves_the_old_file_and_no_half_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, message: str
) -> None:
    write_png(tmp_path / "a.png", PIXELS, "old")

    def fail(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match=message):
        write_png(tmp_path / "a.png", PIXELS, TEXT)
    assert os.listdir(tmp_path) == ["a.png"] and read_infotext(tmp_path / "a.png") == "old"


def test_an_interruption_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "a.png", b"x")
    assert os.listdir(tmp_path) == []


def test_two_writers_of_one_file_leave_one_whole_file(tmp_path: Path) -> None:
    contents = [bytes([i]) * 100_000 for i in range(8)]
    writers = [threading.Thread(target=write_bytes, args=(tmp_path / "a", content)) for content in contents]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert (tmp_path / "a").read_bytes() in contents and os.listdir(tmp_path) == ["a"]


def test_a_text_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="half of a surrogate pair"):
        write_png(tmp_path / "a.png", PIXELS, "a \udc80 cat")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", ["zTXt", "late"])
def test_compressed_text_and_text_after_the_pixels_are_found(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.png"
    info = PngImagePlugin.PngInfo()
    if kind == "zTXt":
        info.add_text("parameters", TEXT, zip=True)
    else:
        info.add(b"tEXt", b"parameters\0" + TEXT.encode("latin-1"), after_idat=True)
    Image.fromarray(PIXELS).save(path, pnginfo=info)
    assert read_infotext(path) == TEXT


@pytest.mark.parametrize("compressed", [False, True])
def test_utf_8_where_png_has_latin_1_is_read(tmp_path: Path, compressed: bool) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", f"狐 café, {TEXT}".encode(), zip=compressed)
    Image.fromarray(PIXELS).save(tmp_path / "a.png", pnginfo=info)
    assert read_infotext(tmp_path / "a.png") == f"狐 café, {TEXT}"


@pytest.mark.parametrize("text", ["café", "cafÃ©", "Ã© 狐"])
def test_latin_1_that_would_pass_for_utf_8_comes_back(tmp_path: Path, text: str) -> None:
    write_png(tmp_path / "a.png", PIXELS, text)
    assert read_infotext(tmp_path / "a.png") == text


@pytest.mark.parametrize("ending", ["jpg", "webp", "png", "avif"])
@pytest.mark.parametrize(
    "comment",
    [
        b"UNICODE\0" + TEXT.encode("utf-16-be"),
        b"UNICODE\0" + TEXT.encode("utf-16-le"),
        b"UNICODE\0" + TEXT.encode("utf-16"),
        b"ASCII\0\0\0" + TEXT.encode(),
        b"\0" * 8 + TEXT.encode(),
        TEXT.encode(),
    ],
    ids=["big", "little", "marked", "ascii", "undefined", "bare"],
)
def test_exif_comments_of_every_encoding_are_read(tmp_path: Path, ending: str, comment: bytes) -> None:
    assert read_infotext(with_comment(tmp_path / f"a.{ending}", comment)) == TEXT


def test_exif_comments_hold_any_script(tmp_path: Path) -> None:
    text = f"日本語の狐 🦊, {TEXT}"
    assert read_infotext(with_comment(tmp_path / "a.jpg", b"UNICODE\0" + text.encode("utf-16-be"))) == text


def test_exif_wins_over_png_text_as_in_a1111(tmp_path: Path) -> None:
    exif = exif_with(b"UNICODE\0" + "from exif".encode("utf-16-be"))
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "from text")
    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=exif, pnginfo=info)
    assert read_infotext(tmp_path / "a.png") == "from exif"


def test_novelais_pieces_are_put_together(tmp_path: Path) -> None:
    comment = {
        "steps": 28,
        "sampler": "k_euler_ancestral",
        "seed": 7,
        "scale": 11.0,
        "uc": "lowres",
        "width": 16,
        "height": 8,
    }
    path = png(tmp_path / "a.png", Software="NovelAI", Description="a swamp", Comment=json.dumps(comment))
    asked = request_from_text(read_infotext(path).replace('"width": 16, "height": 8', '"width": 512, "height": 768'))
    assert (asked.prompt, asked.negative_prompt, asked.clip_skip, asked.height) == (
        "a swamp",
        "lowres",
        ClipSkip(2),
        768,
    )


def test_a_novelai_picture_without_a_size_in_its_comment_has_its_own(tmp_path: Path) -> None:
    comment = {"steps": 28, "sampler": "k_euler_ancestral", "seed": 7, "scale": 11.0, "uc": "lowres"}
    path = png(
        tmp_path / "a.png", Software="NovelAI", Source="SD 1D44365E", Description="p", Comment=json.dumps(comment)
    )
    assert json.loads(read_infotext(path)) == comment | {
        "prompt": "p",
        "width": 16,
        "height": 8,
        "Source": "SD 1D44365E",
    }


def hide(pixels: np.ndarray, content: bytes, mark: bytes) -> np.ndarray:
    """The pixels with content in their lowest bits, written one by one."""
    stream = mark + (8 * len(content)).to_bytes(4, "big") + content
    bits = [byte >> (7 - place) & 1 for byte in stream for place in range(8)]
    hidden = pixels.copy()
    channels = (3,) if b"png" in mark else (0, 1, 2)
    places = [(y, x, c) for x in range(pixels.shape[1]) for y in range(pixels.shape[0]) for c in channels]
    for place, bit in zip(places, bits, strict=False):
        hidden[place] = hidden[place] & 0xFE | bit
    return hidden


@pytest.mark.parametrize("mark", [b"stealth_pnginfo", b"stealth_pngcomp", b"stealth_rgbinfo", b"stealth_rgbcomp"])
@pytest.mark.parametrize("ending", ["png", "webp"])
def test_settings_hidden_in_the_pixels_are_read(tmp_path: Path, mark: bytes, ending: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 56, 4 if b"png" in mark else 3), dtype=np.uint8)
    pixels[..., 3:] = 255
    content = gzip.compress(TEXT.encode()) if mark.endswith(b"comp") else TEXT.encode()
    Image.fromarray(hide(pixels, content, mark)).save(tmp_path / f"a.{ending}", lossless=True)
    assert read_infotext(tmp_path / f"a.{ending}") == TEXT


def test_novelais_hidden_record_is_read_as_its_chunks_are(tmp_path: Path) -> None:
    record = {"Software": "NovelAI", "Description": "a swamp", "Comment": json.dumps({"uc": "lowres", "seed": 7})}
    pixels = np.full((64, 64, 4), 255, np.uint8)
    content = gzip.compress(json.dumps(record).encode())
    Image.fromarray(hide(pixels, content, b"stealth_pngcomp")).save(tmp_path / "a.png")
    asked = request_from_text(read_infotext(tmp_path / "a.png"))
    assert (asked.prompt, asked.negative_prompt, asked.seed, asked.clip_skip) == ("a swamp", "lowres", 7, ClipSkip(2))
    assert (asked.width, asked.height) == (64, 64)


@pytest.mark.parametrize("content", [b"\xff" * 99, gzip.compress(b"a" * 11_000_000)], ids=["no gzip", "bomb"])
def test_hidden_bits_that_are_no_settings_are_none(tmp_path: Path, content: bytes) -> None:
    pixels = np.full((400, 400, 4), 255, np.uint8)
    Image.fromarray(hide(pixels, content, b"stealth_pngcomp")).save(tmp_path / "a.png")
    with pytest.raises(WrongKind, match="contains no settings"):
        read_infotext(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("sd-metadata", '{"app_id": "x", "image": {"prompt": "a swamp", "seed": 7}}'),
        ("Dream", '"a swamp" -s 20 -S 7 -A k_euler'),
        (
            "generation_data",
            '{"prompt": "a swamp", "seed": "7", "samplerName": "Euler", "baseModel": {"label": "x"}}\0',
        ),
        ("parameters", '{"sui_image_params": {"prompt": "a swamp", "seed": 7}}'),
    ],
)
def test_the_chunks_of_other_tools_are_read(tmp_path: Path, key: str, text: str) -> None:
    asked = request_from_text(read_infotext(png(tmp_path / "a.png", prompt="{}", **{key: text})))
    assert (asked.prompt, asked.seed) == ("a swamp", 7)


def test_easy_diffusions_pieces_are_put_together(tmp_path: Path) -> None:
    chunks = {"prompt": "a swamp", "negative_prompt": "lowres", "use_stable_diffusion_model": "sd-v1-5", "clip_skip": "True",
              "seed": "7", "num_inference_steps": "25", "sampler_name": "euler_a", "guidance_scale": "7.5"}  # fmt: skip
    asked = request_from_text(read_infotext(png(tmp_path / "a.png", **chunks)))
    assert (asked.prompt, asked.clip_skip, asked.steps) == ("a swamp", ClipSkip(2), 25)


@pytest.mark.parametrize("key", ["parameters", "invokeai_metadata", "prompt"])
def test_every_tools_chunk_is_read(tmp_path: Path, key: str) -> None:
    assert (
        read_infotext(png(tmp_path / "a.png", Title="x", **{key: '{"positive_prompt": "p"}'}))
        == '{"positive_prompt": "p"}'
    )


def test_a_comfyui_graph_that_begins_with_a_picture_comes_with_the_size_of_its_own(tmp_path: Path) -> None:
    graph = '{"5": {"class_type": "VAEEncode", "inputs": {}}}'
    text = read_infotext(png(tmp_path / "a.png", prompt=graph))
    assert json.loads(text) == {"prompt": json.loads(graph), "size": "16x8"}


def test_a_workflow_counts_where_no_graph_in_api_form_is_beside_it(tmp_path: Path) -> None:
    workflow = '{"nodes": [], "links": []}'
    assert read_infotext(png(tmp_path / "a.png", workflow=workflow)) == workflow
    assert read_infotext(png(tmp_path / "a.png", workflow=workflow, prompt='{"3": {}}')) == '{"3": {}}'


@pytest.mark.parametrize(
    "comment", ["Screenshot", "Created with GIMP", "CREATOR: gd-jpeg v1.0 (using IJG JPEG v62), quality = 90"]
)
def test_what_other_programs_say_of_a_picture_is_no_prompt(tmp_path: Path, comment: str) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0" + comment.encode()
    xmp = f"<x:xmpmeta><exif:UserComment><rdf:Alt><rdf:li>{comment}</rdf:li></rdf:Alt></exif:UserComment></x:xmpmeta>"
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt("XML:com.adobe.xmp", xmp)
    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=exif, pnginfo=chunks)
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg", exif=exif, comment=comment)
    for name in ("a.png", "a.jpg"):
        with pytest.raises(WrongKind, match="contains no settings"):
            read_infotext(tmp_path / name)
    settings_text = f"{comment}\nSteps: 20, Sampler: Euler a, Seed: 5"
    assert read_infotext(png(tmp_path / "b.png", parameters=settings_text)) == settings_text


@pytest.mark.parametrize(("width", "added"), [('["9", 0]', True), ("512", False)])
def test_a_comfyui_graph_whose_size_comes_from_another_node_comes_with_the_size_of_its_own(
    tmp_path: Path, width: str, added: bool
) -> None:
    graph = f'{{"5": {{"class_type": "EmptyLatentImage", "inputs": {{"width": {width}, "height": 512}}}}}}'
    text = read_infotext(png(tmp_path / "a.png", prompt=graph))
    assert json.loads(text) == ({"prompt": json.loads(graph), "size": "16x8"} if added else json.loads(graph))


def test_comfyuis_webp_is_read(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0110] = 'prompt:{"3": {}}'
    Image.fromarray(PIXELS).save(tmp_path / "a.webp", exif=exif)
    assert read_infotext(tmp_path / "a.webp") == '{"3": {}}'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_text_file_is_read_whatever_its_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.txt").write_text("狐 a swamp", encoding)
    assert read_infotext(tmp_path / "a.txt") == "狐 a swamp"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int) -> bytes:
    """A PNG whose few bytes claim to be a huge picture."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    text = chunk(b"tEXt", b"parameters\0a swamp")
    return b"\x89PNG\r\n\x1a\n" + header + text + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def whole_png() -> bytes:
    stored = io.BytesIO()
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", TEXT)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stored, "PNG", pnginfo=info)
    return stored.getvalue()


def text_bomb() -> bytes:
    """A PNG with 20 MB of text in 20 kB."""
    plain = whole_png()
    packed = chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"a" * 20_000_000, 9))
    return plain[:33] + packed + plain[33:]


BAD = {
    "empty": (b"", DamagedFile, "is empty"),
    "blank": (b" \n\n", DamagedFile, "is empty"),
    "svg": (b'<?xml version="1.0"?><svg onload="x()"/>', WrongKind, "web page or SVG"),
    "html": (b"<!DOCTYPE html><html></html>", WrongKind, "web page"),
    "weights": (b"\x88\x00\xff\xfe" * 50, WrongKind, "neither a picture nor text"),
    "nulls": (b"a\0b" * 50, WrongKind, "not a text file"),
    "cut": (whole_png()[:-4000], DamagedFile, "damaged picture"),
    "cut in its header": (whole_png()[:20], DamagedFile, "damaged picture"),
    "wrong sum": (whole_png()[:40] + b"xxxx" + whole_png()[44:], DamagedFile, "damaged picture"),
    "bomb": (bomb(60_000, 60_000), WrongKind, "pixels; pictures of more than"),
    "smaller bomb": (bomb(12_000, 12_000), WrongKind, "12000 x 12000 pixels"),
    "text bomb": (text_bomb(), DamagedFile, "damaged picture"),
    "jpeg of nothing": (b"\xff\xd8\xff\xe0" + b"\0" * 50, DamagedFile, "damaged picture"),
    "webp of nothing": (b"RIFF\x10\0\0\0WEBPVP8 ", DamagedFile, "damaged picture"),
    "no settings": (None, WrongKind, "contains no settings"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_clear_line(tmp_path: Path, name: str) -> None:
    content, error, message = BAD[name]
    path = tmp_path / "a.png"
    if content is None:
        Image.fromarray(PIXELS).save(path)
    else:
        path.write_bytes(content)
    with pytest.raises(error, match=message) as caught:
        read_infotext(path)
    assert "\n" not in str(caught.value) and "a.png" in str(caught.value)


def test_what_is_no_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        read_infotext(tmp_path / "none.png")
    with pytest.raises(FileError, match="directory"):
        read_infotext(tmp_path)
    if os.path.exists("/dev/zero"):
        with pytest.raises(WrongKind, match="not a regular file"):
            read_infotext(Path("/dev/zero"))


def test_a_huge_text_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.txt").open("wb") as file:
        file.write(b"x")
        file.truncate(11 * 2**20)
    with pytest.raises(WrongKind, match="the most that are read"):
        read_infotext(tmp_path / "a.txt")


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.integers(0, 400), st.binary(min_size=1, max_size=8))
def test_damage_anywhere_is_an_error_of_ours_or_does_no_harm(
    tmp_path_factory: pytest.TempPathFactory, place: int, junk: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.jpg"
    content = bytearray(with_comment(path, b"UNICODE\0" + TEXT.encode("utf-16-be")).read_bytes())
    content[place : place + len(junk)] = junk
    path.write_bytes(content)
    try:
        assert isinstance(read_infotext(path), str)
    except ClipskipError as error:
        assert "\n" not in str(error)


def test_a_text_that_is_named_as_a_picture_is_no_prompt(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"a swamp\nSteps: 20")
    with pytest.raises(WrongKind, match="has the name of a picture but contains text"):
        read_infotext(tmp_path / "a.png")


def test_megabytes_of_text_in_a_picture_are_refused(tmp_path: Path) -> None:
    write_png(tmp_path / "long.png", np.zeros((8, 8, 3), np.uint8), "a, " * 700_000 + "\nSteps: 20, Sampler: Euler a")
    with pytest.raises(WrongKind, match=r"contains 2,100,\d\d\d characters"):
        read_infotext(tmp_path / "long.png")
