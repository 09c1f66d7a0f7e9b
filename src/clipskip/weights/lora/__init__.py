"""A LoRA file to what it changes by module, to a model with it merged, or to a report on it."""

from clipskip.weights.lora.change import LoraModule
from clipskip.weights.lora.epochs import Epoch, order_epochs
from clipskip.weights.lora.file import Lora, load_lora
from clipskip.weights.lora.merge import MOST_KEPT, Weighted, check_loras, is_merged, merge_for_good, merged
from clipskip.weights.lora.misfits import check_fit
from clipskip.weights.lora.names import UNET, NameTable, module_names, name_table, sd1_table, table_for
from clipskip.weights.lora.report import LoraOutline, LoraReport, inspect_lora, outline_lora, report_lora
from clipskip.weights.lora.trainer_metadata import tag_counts, trained_skip, trigger_words, unused_skips

__all__ = [
    "MOST_KEPT",
    "UNET",
    "Epoch",
    "Lora",
    "LoraModule",
    "LoraOutline",
    "LoraReport",
    "NameTable",
    "Weighted",
    "check_fit",
    "check_loras",
    "inspect_lora",
    "is_merged",
    "load_lora",
    "merge_for_good",
    "merged",
    "module_names",
    "name_table",
    "order_epochs",
    "outline_lora",
    "report_lora",
    "sd1_table",
    "table_for",
    "tag_counts",
    "trained_skip",
    "trigger_words",
    "unused_skips",
]
