"""The prediction of a checkpoint's UNet, noise (epsilon) or velocity (v): by its file, for SD 2.x also by its weights.

SD 2.x's two kinds have the same tensors. In whole files the biases of one norm tell them apart; without those the UNet
itself is asked.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from clipskip.errors import ClipskipError
from clipskip.networks import UNetShape, build_unet
from clipskip.spec import Family
from clipskip.weights.container import Header
from clipskip.weights.keys import TensorSource
from clipskip.weights.tensors import read_tensors

WORDS = {"v": "v", "v_prediction": "v", "v-prediction": "v", "epsilon": "epsilon", "eps": "epsilon"}
"""Spellings in metadata and diffusers' schedulers."""
IN_NAME = re.compile(r"(?<![a-z])v[-_. ]?pred(iction)?(?![a-z])", re.IGNORECASE)
NORM = "up_blocks.3.attentions.2.transformer_blocks.0.norm1.bias"
SPREAD = 0.09
"""The standard deviation of NORM above which an SD 2.x UNet predicts v (ComfyUI, supported_models.py
SD20.model_type)."""
GREY, LAST_TIMESTEP, CELLS = 0.5, 999, 8
"""The question to the UNet: a latent and a text of this number everywhere, at the last timestep."""
LIMIT = -1.0
"""The mean of answer minus latent below which it predicts v (A1111, is_using_v_parameterization_for_sd2)."""
PROBED = "its UNet's answer to an even latent"


@dataclass(frozen=True, slots=True)
class Stated:
    """The stated prediction, and where it is stated."""

    prediction: str = ""
    """epsilon or v; empty where it is not stated."""
    source: str = ""


def stated_prediction(header: Header, *, family: Family | None, norm: TensorSource | None) -> Stated:
    """Return a file's prediction by its metadata, a marking tensor, a .yaml beside it, its weights or its name.

    `norm` is the place of the tensor that tells SD 2.x's two kinds apart.
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
    biases = _biases(header, norm) if family is Family.SD2 else None
    if biases is not None:
        return by_spread(biases)
    return Stated("v", "its name") if IN_NAME.search(header.path.name) else Stated()


def by_spread(biases: Float[Tensor, " channels"]) -> Stated:
    """Return an SD 2.x UNet's prediction by the biases of NORM."""
    spread = float(biases.float().std(correction=0))
    return Stated(
        "v" if spread > SPREAD else "epsilon", f"a norm in its weights (standard deviation of the biases {spread:.2f})"
    )


@torch.inference_mode()
def by_answer(state: Mapping[str, Float[Tensor, "..."]], shape: UNetShape) -> Stated:
    """Return an SD 2.x UNet's prediction by its answer to a latent of 0.5 everywhere.

    A UNet that predicts epsilon returns nearly the latent, one that predicts v far less (A1111 1.10,
    sd_models_config.py).
    """
    like = next(iter(state.values()))
    unet = build_unet(dict(state), shape, dtype=like.dtype, device=like.device)
    grey = torch.full((1, shape.in_channels, CELLS, CELLS), GREY, dtype=like.dtype, device=like.device)
    text = torch.full((1, 2, shape.cross_attention_dim), GREY, dtype=like.dtype, device=like.device)
    answer = unet(grey, torch.tensor([float(LAST_TIMESTEP)], device=like.device), text)
    mean = float((answer.float() - grey.float()).mean())
    if not math.isfinite(mean):
        return Stated()
    return Stated("v" if mean < LIMIT else "epsilon", f"{PROBED} ({mean:.2f}; v is below {LIMIT:g})")


def _beside(path: Path) -> str:
    """Return the prediction in a .yaml of the same name: A1111's `parameterization: "v"`, or sgm's VScaling."""
    try:
        with path.with_suffix(".yaml").open(encoding="utf-8", errors="replace") as file:
            match = re.search(r'parameterization:\s*["\']?(v|eps)\b|\.(V|Eps)Scaling\b', file.read(65536))
    except (OSError, ValueError):
        return ""
    return WORDS[(match[1] or match[2]).lower()] if match else ""


def _biases(header: Header, norm: TensorSource | None) -> Float[Tensor, " channels"] | None:
    if norm is None or header.tensors[norm.name].end == 0:  # a pickle, whose tensors are not read for this
        return None
    try:
        return read_tensors(header, {NORM: norm}, dtype=torch.float32)[NORM]
    except ClipskipError:
        return None
