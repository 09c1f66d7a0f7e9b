"""One entrance for every kind of model file: its table of contents, before any weight is read."""

import os

from clipskip.weights.container import Header, Stamp, TensorInfo, as_path, read_file_header
from clipskip.weights.diffusers_folder import read_folder_header

__all__ = ["Header", "Stamp", "TensorInfo", "read_header"]


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read the header of a safetensors file or a diffusers folder, strictly enough to rely on its content."""
    path_ = as_path(path)
    return read_folder_header(path_) if os.path.isdir(path_) else read_file_header(path_)
