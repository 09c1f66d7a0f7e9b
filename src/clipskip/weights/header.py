"""One door for every kind of model file: its table of contents, before any weight is read."""

import os

from clipskip.weights.container import Header, Stamp, TensorInfo, as_path, read_file_header
from clipskip.weights.folder import read_folder_header

__all__ = ["Header", "Stamp", "TensorInfo", "read_header"]


def read_header(path: str | os.PathLike[str]) -> Header:
    """The header of a safetensors file or a diffusers folder; strict, so that what it says can be relied on."""
    found = as_path(path)
    return read_folder_header(found) if os.path.isdir(found) else read_file_header(found)
