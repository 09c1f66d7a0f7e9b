"""What the user's folders hold, as the page lists it."""

import contextlib
from typing import Any

from clipskip.errors import ClipskipError
from clipskip.weights import FileKind, Library, count_vectors, identify, read_header
from clipskip.weights.hashes import cached_hashes
from clipskip.weights.library import Found
from clipskip.weights.lora import outline_lora

TAGS = 20


def describe_files(library: Library) -> dict[str, Any]:
    """Models, LoRAs and embeddings; a file that cannot be read is there with its reason as a warning."""
    return {
        "models": [_model(found) for found in _each(library, FileKind.CHECKPOINT)],
        "loras": [_lora(found) for found in _each(library, FileKind.LORA)],
        "embeddings": [_embedding(found) for found in _each(library, FileKind.EMBEDDING)],
    }


def _each(library: Library, kind: FileKind) -> list[Found]:
    """One file for each name: the one that the name finds."""
    return list({found.name: found for found in reversed(library.files(kind))}.values())[::-1]


def _common(found: Found) -> dict[str, Any]:
    hashes = cached_hashes(found.path) if found.path.is_file() else None
    size = found.path.stat().st_size if found.path.is_file() else 0
    return {"name": found.stem, "file": found.name, "size_bytes": size, "hash": hashes.autov2 if hashes else None}


def _model(found: Found) -> dict[str, Any]:
    facts: dict[str, Any] = {"family": None, "layers": None, "width": None, "trained_clip_skip": None, "warnings": []}
    try:
        identity = identify(read_header(found.path))
    except ClipskipError as error:
        return _common(found) | facts | {"warnings": [str(error)]}
    first = identity.encoders[0] if identity.encoders else None
    return _common(found) | {
        "family": identity.family.label if identity.family else None,
        "layers": first.layers if first else None,
        "width": first.width if first else None,
        "trained_clip_skip": identity.trained_clip_skip,
        "warnings": [f"missing: {name}" for name in identity.missing],
    }


def _lora(found: Found) -> dict[str, Any]:
    empty: dict[str, Any] = {
        "alias": None, "family": None, "rank": None, "trained_clip_skip": None, "trained_clip_skip_source": None,
        "trigger_words": [], "tag_counts": {}, "touches": {"text_encoder": False, "unet": False, "text_layers": []},
    }  # fmt: skip
    try:
        outline = outline_lora(read_header(found.path))
    except ClipskipError as error:
        return _common(found) | empty | {"warnings": [str(error)]}
    hashes = cached_hashes(found.path)
    return _common(found) | {
        "hash": hashes.autov3 if hashes else None,
        "alias": outline.alias or None,
        "family": outline.family,
        "rank": outline.rank,
        "trained_clip_skip": outline.trained_clip_skip,
        "trained_clip_skip_source": outline.trained_clip_skip_source or None,
        "trigger_words": list(outline.trigger_words),
        "tag_counts": dict(outline.tags[:TAGS]),
        "touches": {
            "text_encoder": outline.touches_text,
            "unet": outline.touches_unet,
            "text_layers": list(outline.text_layers),
        },
        "warnings": list(outline.warnings),
    }


def _embedding(found: Found) -> dict[str, Any]:
    vectors = None
    with contextlib.suppress(ClipskipError):
        vectors = count_vectors(found.path)
    return _common(found) | {"vectors": vectors}
