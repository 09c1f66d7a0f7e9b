"""Files in, tensors under canonical names out: checkpoints, LoRAs, embeddings and the folders they are found in."""

from clipskip.weights.header import Header, TensorInfo, read_header
from clipskip.weights.shapes import TextShape, UNetShape, VAEShape

__all__ = ["Header", "TensorInfo", "TextShape", "UNetShape", "VAEShape", "read_header"]
