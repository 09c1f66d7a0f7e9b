"""Files to tensors under canonical names: checkpoints, LoRAs, embeddings and the folders that hold them."""

from clipskip.weights.catalog import FileFacts
from clipskip.weights.checkpoint import (
    Checkpoint,
    TextWeights,
    load_checkpoint,
    load_text,
    read_again,
    read_facts,
    source_file,
)
from clipskip.weights.embedding import Embedding, count_vectors, load_embedding
from clipskip.weights.facts import CheckpointFacts, EncoderFacts, Prediction, SourceFile, check_encoders
from clipskip.weights.hashes import Hashes, hash_file
from clipskip.weights.header import Header, TensorInfo, read_header
from clipskip.weights.identify import FileKind, Identity, check_loadable, identify
from clipskip.weights.keys import TEXT_PARTS, Source, canonical
from clipskip.weights.library import Library
from clipskip.weights.pickles import is_pickle, read_allowed
from clipskip.weights.save import save_folder, save_single_file
from clipskip.weights.upscaler import UpscalerFile, find_upscaler, load_upscaler, upscaler_name
from clipskip.weights.vae import VAEFile, beside, find_fitting, load_vae
from clipskip.weights.walking import LibraryFile

__all__ = [
    "TEXT_PARTS",
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
    "Source",
    "SourceFile",
    "TensorInfo",
    "TextWeights",
    "UpscalerFile",
    "VAEFile",
    "beside",
    "canonical",
    "check_encoders",
    "check_loadable",
    "count_vectors",
    "find_fitting",
    "find_upscaler",
    "hash_file",
    "identify",
    "is_pickle",
    "load_checkpoint",
    "load_embedding",
    "load_text",
    "load_upscaler",
    "load_vae",
    "read_again",
    "read_allowed",
    "read_facts",
    "read_header",
    "save_folder",
    "save_single_file",
    "source_file",
    "upscaler_name",
]
