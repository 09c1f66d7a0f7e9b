"""Writing models for other tools: one LDM-layout file, or a diffusers folder."""

import gzip
import json
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory

from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from clipskip.errors import OutputError
from clipskip.prompt import END, START, token_pieces
from clipskip.weights.checkpoint import Checkpoint
from clipskip.weights.facts import Prediction
from clipskip.weights.keys import ldm_names
from clipskip.weights.shape_reader import TEXT_HEADS, UNET_GROUPS, UNET_HEADS, VAE_GROUPS, VAE_SCALE

READABLE = 0o644
"""safetensors writes 0600, which nobody else in a shared folder can read."""
MERGES = 48894
"""Number of byte pairs in CLIP's vocabulary: 49408 tokens minus 2 x 256 bytes and 2 ends (OpenAI's
simple_tokenizer.py)."""
TENSORS = {"format": "pt"}


def save_single_file(checkpoint: Checkpoint, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a model as one safetensors file in LDM's layout; it gets its name when it is complete."""
    state: dict[str, Tensor] = {}
    for part, tensors in (("text_encoder", checkpoint.text[0]), ("unet", checkpoint.unet), ("vae", checkpoint.vae)):
        names = ldm_names(part, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
        state |= {names[name]: _as_ldm(part, name, tensor) for name, tensor in tensors.items()}
    _write_tensors(state, path, dict(checkpoint.facts.metadata) | facts(checkpoint) | dict(metadata or {}))


def facts(checkpoint: Checkpoint) -> dict[str, str]:
    """Return the metadata that reading this model back needs besides the shapes."""
    known = checkpoint.facts
    unet, vae = known.unet, known.vae
    metadata = {
        TEXT_HEADS: str(known.encoders[0].shape.heads),
        UNET_HEADS: _heads(unet.attention_heads),
        UNET_GROUPS: str(unet.norm_num_groups),
        VAE_GROUPS: str(vae.norm_num_groups),
        VAE_SCALE: str(vae.scaling_factor),
        "modelspec.architecture": "stable-diffusion-v1",
        "modelspec.prediction_type": known.prediction,
        "modelspec.resolution": f"{known.native_px}x{known.native_px}",
    }
    if known.trained_clip_skip is not None:
        metadata["modelspec.encoder_layer"] = str(known.trained_clip_skip)
    return metadata


def _heads(levels: tuple[int, ...]) -> str:
    """Return one number where all levels have the same number of heads."""
    return str(levels[0]) if len(set(levels)) == 1 else ",".join(map(str, levels))


def save_folder(checkpoint: Checkpoint, path: Path) -> None:
    """Write a model as a new folder for diffusers' StableDiffusionPipeline.from_pretrained."""
    if path.exists():
        raise OutputError(f"{path} already exists; name a new folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as temporary:
            folder = Path(temporary) / "model"
            _write_folder(checkpoint, folder)
            folder.rename(path)
    except (OSError, SafetensorError) as error:
        raise OutputError(
            f"{path} cannot be written: {getattr(error, 'strerror', None) or error}; choose another place"
        ) from None


def _write_folder(checkpoint: Checkpoint, folder: Path) -> None:
    parts = {
        "text_encoder": ("transformers", "CLIPTextModel"),
        "unet": ("diffusers", "UNet2DConditionModel"),
        "vae": ("diffusers", "AutoencoderKL"),
        "scheduler": ("diffusers", "PNDMScheduler"),
        "tokenizer": ("transformers", "CLIPTokenizer"),
    }
    for name in parts:
        (folder / name).mkdir(parents=True)
    empty = {"safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False}
    index = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.36.0", **empty}
    _write_json(folder / "model_index.json", index | {name: list(kind) for name, kind in parts.items()})
    # With the prefix, transformers before 5.6 and after both read it.
    text = {f"text_model.{name}": tensor for name, tensor in checkpoint.text[0].items()}
    text_config = {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        **checkpoint.facts.encoders[0].shape.config(),
    }
    _write_part(folder / "text_encoder" / "model.safetensors", text, text_config)
    unet = {"_class_name": "UNet2DConditionModel", **checkpoint.facts.unet.config()}
    _write_part(folder / "unet" / "diffusion_pytorch_model.safetensors", checkpoint.unet, unet)
    vae = {"_class_name": "AutoencoderKL", **checkpoint.facts.vae.config(), "sample_size": checkpoint.facts.native_px}
    _write_part(folder / "vae" / "diffusion_pytorch_model.safetensors", checkpoint.vae, vae)
    _write_json(folder / "scheduler" / "scheduler_config.json", scheduler_config(checkpoint.facts.prediction))
    _write_tokenizer(folder / "tokenizer", positions=checkpoint.facts.encoders[0].shape.positions)


def scheduler_config(prediction: Prediction) -> dict[str, object]:
    """Return SD 1.x's noise schedule, as its own repository states it."""
    return {
        "_class_name": "PNDMScheduler",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "prediction_type": "v_prediction" if prediction == "v" else "epsilon",
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
    }


def _write_part(path: Path, state: Mapping[str, Tensor], config: Mapping[str, object]) -> None:
    _write_json(path.parent / "config.json", config)
    _write_tensors(state, path, TENSORS)


def _write_tokenizer(folder: Path, *, positions: int) -> None:
    """Write CLIP's tokenizer as transformers reads it, from the vocabulary in this package."""
    text = gzip.decompress(resources.files("clipskip.prompt").joinpath("bpe_simple_vocab_16e6.txt.gz").read_bytes())
    merges = text.decode("utf-8").split("\n")[1 : MERGES + 1]
    tokens = token_pieces(range(END + 1))
    start, end = tokens[START], tokens[END]
    ends = {"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": end}
    _write_json(folder / "vocab.json", {token: number for number, token in enumerate(tokens)})
    _write_text(folder / "merges.txt", "\n".join(["#version: 0.2", *merges, ""]))
    _write_json(folder / "special_tokens_map.json", ends)
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": positions, "do_lower_case": True, **ends}
    _write_json(folder / "tokenizer_config.json", config)


def _as_ldm(part: str, name: str, tensor: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return a tensor as LDM stores it: attention in the VAE consists of 1x1 convolutions."""
    linear = part == "vae" and ".attentions." in name and tensor.dim() == 2
    return tensor[:, :, None, None] if linear else tensor


def _write_tensors(state: Mapping[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    own = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
    except (OSError, SafetensorError) as error:
        raise OutputError(
            f"{path} cannot be written: {getattr(error, 'strerror', None) or error}; choose another place"
        ) from None
    try:
        save_file(own, temporary, metadata=metadata)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(READABLE)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{path} cannot be written: {error}; choose another place") from None
    finally:
        temporary.unlink(missing_ok=True)


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    _write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(READABLE)
