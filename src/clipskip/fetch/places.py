"""The folder that a fetched file belongs in, by its kind, as in A1111 or ComfyUI."""

from collections.abc import Sequence
from pathlib import Path

from clipskip.weights import LAYOUT, STARTER, FileKind, own_folder

NEW_FOLDERS = {
    FileKind.CHECKPOINT: "Stable-diffusion",
    FileKind.LORA: "Lora",
    FileKind.VAE: "VAE",
    FileKind.EMBEDDING: "embeddings",
}
"""A1111's names, for a folder that has none yet."""


def folder_for(kind: FileKind, folders: Sequence[Path]) -> Path:
    """Return the folder for a file of this kind: the first one that the user has, else a new one in the first
    folder."""
    roots = [folder for folder in folders if folder != STARTER] or [own_folder()]
    for root in roots:
        for part in LAYOUT.get(kind, ()):
            if (root / part).is_dir():
                return root / part
    models = roots[0] / "models"
    return (models if models.is_dir() else roots[0]) / NEW_FOLDERS[kind]
