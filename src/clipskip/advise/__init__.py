"""An open model, a prompt, LoRAs and pictures in; what each Clip Skip does to them, in numbers, and which to use, out."""

from clipskip.advise.advice import Advice, Wanted, advise, advise_by_family, most_rows, whole_skips
from clipskip.advise.epochs import Compared, Comparison, EpochChoice, compare
from clipskip.advise.files import FAMILIES, Evidence, layer_notes
from clipskip.advise.layers import Layers, read_layers
from clipskip.advise.prompted import LoraUptake, PhraseReaction, Prompted, Pull
from clipskip.advise.scoring import Score, Scoring, available, score_sweep
from clipskip.advise.trained import Captioned, Trained, by_pictures
from clipskip.advise.verdict import Answer, Verdict

__all__ = [
    "FAMILIES",
    "Advice",
    "Answer",
    "Captioned",
    "Compared",
    "Comparison",
    "EpochChoice",
    "Evidence",
    "Layers",
    "LoraUptake",
    "PhraseReaction",
    "Prompted",
    "Pull",
    "Score",
    "Scoring",
    "Trained",
    "Verdict",
    "Wanted",
    "advise",
    "advise_by_family",
    "available",
    "by_pictures",
    "compare",
    "layer_notes",
    "most_rows",
    "read_layers",
    "score_sweep",
    "whole_skips",
]
