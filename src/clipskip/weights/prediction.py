"""What a checkpoint's UNet predicts, noise (epsilon) or velocity (v), by what its file says and, for SD 2.x, by one tensor."""

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from clipskip.errors import ClipskipError
from clipskip.spec.family import Family
from clipskip.weights.container import Header
from clipskip.weights.keys import Source
from clipskip.weights.reading import read_tensors

WORDS = {"v": "v", "v_prediction": "v", "v-prediction": "v", "epsilon": "epsilon", "eps": "epsilon"}
"""How metadata and diffusers' schedulers write it."""
IN_NAME = re.compile(r"(?<![a-z])v[-_. ]?pred(iction)?(?![a-z])", re.IGNORECASE)
NORM = "up_blocks.3.attentions.2.transformer_blocks.0.norm1.bias"
SPREAD = 0.09
"""Standard deviation of NORM above which an SD 2.x UNet predicts v (ComfyUI, supported_models.py SD20.model_type)."""


@dataclass(frozen=True, slots=True)
class Stated:
    """What is predicted, and where that is said."""

    prediction: str = ""
    """epsilon, v, or nothing where it is not said."""
    source: str = ""


def stated_prediction(header: Header, *, family: Family | None, norm: Source | None) -> Stated:
    """What a file says of its prediction: its metadata, a marking tensor, a .yaml beside it, its weights or its name.

    `norm` is where the file has the tensor that tells SD 2.x's two kinds apart.
    """
    scheduler = header.configs.get("scheduler", {}).get("prediction_type")
    for name in ("modelspec.prediction_type", "prediction_type"):
        if header.metadata.get(name) in WORDS:
            return Stated(WORDS[header.metadata[name]], f"its metadata {name}")
    if isinstance(scheduler, str) and scheduler in WORDS:
        return Stated(WORDS[scheduler], "its scheduler's settings")
    if any(name.removeprefix("state_dict.") == "v_pred" for name in header.tensors):
        return Stated("v", "its tensor v_pred")
    if header.metadata.get("ss_v_parameterization") == "True":
        return Stated("v", "its metadata ss_v_parameterization")
    beside = "" if header.is_folder else _beside(header.path)
    if beside:
        return Stated(beside, "the .yaml beside it")
    spread = _spread(header, norm) if family is Family.SD2 else None
    if spread is not None:
        return Stated(
            "v" if spread > SPREAD else "epsilon", f"its weights, in which a norm's biases spread {spread:.2f}"
        )
    return Stated("v", "its name") if IN_NAME.search(header.path.name) else Stated()


def _beside(path: Path) -> str:
    """A1111's convention: a .yaml of the same name says `parameterization: "v"`, or a scaling of sgm's (VScaling)."""
    try:
        with path.with_suffix(".yaml").open(encoding="utf-8", errors="replace") as file:
            found = re.search(r'parameterization:\s*["\']?(v|eps)\b|\.(V|Eps)Scaling\b', file.read(65536))
    except (OSError, ValueError):
        return ""
    return WORDS[(found[1] or found[2]).lower()] if found else ""


def _spread(header: Header, norm: Source | None) -> float | None:
    if norm is None or header.tensors[norm.name].end == 0:  # a pickle, whose tensors are not read for this
        return None
    try:
        biases = read_tensors(header, {NORM: norm}, dtype=torch.float32)[NORM]
    except ClipskipError:
        return None
    return float(biases.std(correction=0))
