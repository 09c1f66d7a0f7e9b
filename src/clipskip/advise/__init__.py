"""An open model, a prompt, LoRAs and pictures in; what each Clip Skip does to them, in numbers, and which to use, out."""

from clipskip.advise.advice import (
    Advice,
    Wanted,
    advise,
    advise_by_family,
    evidence_of_checkpoint,
    evidence_without_drawing,
    most_rows,
    whole_skips,
)
from clipskip.advise.comparison import Compared, Comparison, Table, compare
from clipskip.advise.files import FAMILIES, Evidence, combined, layer_notes, to_write, training_lines
from clipskip.advise.layers import Heard, LayerReading, WordLayers, read_layers
from clipskip.advise.prompted import LEAST_GUIDANCE, LoraUptake, PhraseReaction, Prompted, Pull
from clipskip.advise.trained import Captioned, Trained, by_pictures
from clipskip.advise.verdict import KNOWN, MOST_SURE, Answer, EpochChoice, Verdict

__all__ = [
    "FAMILIES",
    "KNOWN",
    "LEAST_GUIDANCE",
    "MOST_SURE",
    "Advice",
    "Answer",
    "Captioned",
    "Compared",
    "Comparison",
    "EpochChoice",
    "Evidence",
    "Heard",
    "LayerReading",
    "LoraUptake",
    "PhraseReaction",
    "Prompted",
    "Pull",
    "Table",
    "Trained",
    "Verdict",
    "Wanted",
    "WordLayers",
    "advise",
    "advise_by_family",
    "by_pictures",
    "combined",
    "compare",
    "evidence_of_checkpoint",
    "evidence_without_drawing",
    "layer_notes",
    "most_rows",
    "read_layers",
    "to_write",
    "training_lines",
    "whole_skips",
]
