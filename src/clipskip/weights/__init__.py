"""Files to tensors under canonical names: checkpoints, LoRAs, embeddings and the folders that hold them."""

from clipskip.weights.catalog import FileFacts
from clipskip.weights.checkpoint import (
    Checkpoint,
    State,
    TextWeights,
    load_checkpoint,
    load_text,
    read_again,
    read_facts,
    source_file,
)
from clipskip.weights.embedding import WIDTHS, Embedding, count_vectors, load_embedding
from clipskip.weights.facts import CheckpointFacts, EncoderFacts, Prediction, SourceFile, check_encoders
from clipskip.weights.hashes import Hashes, cached_hashes, hash_file, known_hashes
from clipskip.weights.header import Header, TensorInfo, read_header
from clipskip.weights.hints import SkipHint, civitai_ids, read_hints
from clipskip.weights.identify import FileKind, Identity, check_loadable, identify
from clipskip.weights.keys import TEXT_PARTS, TensorSource, canonical
from clipskip.weights.library import LAYOUT, STARTER, Library, own_folder
from clipskip.weights.pickles import is_pickle, read_allowed
from clipskip.weights.remembered import RememberedSkip, answers_file, remember, remembered_for
from clipskip.weights.save import save_folder, save_single_file
from clipskip.weights.shape_reader import native_px, unet_shape, vae_shape
from clipskip.weights.trainer import TrainerConfig, configs_beside, parse_config, read_trainer_config
from clipskip.weights.upscaler import UpscalerFile, find_upscaler, load_upscaler, upscaler_name
from clipskip.weights.vae_file import VAEFile, beside, find_fitting, load_vae
from clipskip.weights.walking import LibraryFile

__all__ = [
    "LAYOUT",
    "STARTER",
    "TEXT_PARTS",
    "WIDTHS",
    "Checkpoint",
    "CheckpointFacts",
    "Embedding",
    "EncoderFacts",
    "FileFacts",
    "FileKind",
    "Hashes",
    "Header",
    "Identity",
    "Library",
    "LibraryFile",
    "Prediction",
    "RememberedSkip",
    "SkipHint",
    "SourceFile",
    "State",
    "TensorInfo",
    "TensorSource",
    "TextWeights",
    "TrainerConfig",
    "UpscalerFile",
    "VAEFile",
    "answers_file",
    "beside",
    "cached_hashes",
    "canonical",
    "check_encoders",
    "check_loadable",
    "civitai_ids",
    "configs_beside",
    "count_vectors",
    "find_fitting",
    "find_upscaler",
    "hash_file",
    "identify",
    "is_pickle",
    "known_hashes",
    "load_checkpoint",
    "load_embedding",
    "load_text",
    "load_upscaler",
    "load_vae",
    "native_px",
    "own_folder",
    "parse_config",
    "read_again",
    "read_allowed",
    "read_facts",
    "read_header",
    "read_hints",
    "read_trainer_config",
    "remember",
    "remembered_for",
    "save_folder",
    "save_single_file",
    "source_file",
    "unet_shape",
    "upscaler_name",
    "vae_shape",
]
