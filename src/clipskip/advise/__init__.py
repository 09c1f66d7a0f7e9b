"""An open model, a prompt, LoRAs and pictures in; what each Clip Skip does to them, in numbers, and which to use, out."""

from clipskip.advise.advice import Advice, Wanted, advise, advise_by_family, most_rows, whole_skips
from clipskip.advise.comparison import Compared, Comparison, Table, compare
from clipskip.advise.epoch_choice import EpochChoice
from clipskip.advise.files import FAMILIES, Evidence, layer_notes, to_write, training_lines
from clipskip.advise.layers import Heard, LayerReading, WordLayers, read_layers
from clipskip.advise.prompted import LoraUptake, PhraseReaction, Prompted, Pull
from clipskip.advise.scoring import Score, Scoring, available, score_sweep
from clipskip.advise.trained import Captioned, Trained, by_pictures
from clipskip.advise.verdict import KNOWN, MOST_SURE, Answer, Verdict

__all__ = [
    "FAMILIES",
    "KNOWN",
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
    "Score",
    "Scoring",
    "Table",
    "Trained",
    "Verdict",
    "Wanted",
    "WordLayers",
    "advise",
    "advise_by_family",
    "available",
    "by_pictures",
    "compare",
    "layer_notes",
    "most_rows",
    "read_layers",
    "score_sweep",
    "to_write",
    "training_lines",
    "whole_skips",
]
