"""Clip Skip for ComfyUI: a truthful number, fractions, every layer from one pass, sweeps and advice."""

from .advice import ClipSkipAdvice, ClipSkipLayers, ClipSkipUptake
from .nodes import ClipSkipFromSettings, ClipSkipNode, ClipSkipOfPhrase, ClipSkipSchedule, EncodeAtClipSkips
from .sweep import ClipSkipSweep

NODE_CLASS_MAPPINGS = {
    "ClipSkip": ClipSkipNode,
    "ClipSkipFromSettings": ClipSkipFromSettings,
    "EncodeAtClipSkips": EncodeAtClipSkips,
    "ClipSkipSchedule": ClipSkipSchedule,
    "ClipSkipOfPhrase": ClipSkipOfPhrase,
    "ClipSkipSweep": ClipSkipSweep,
    "ClipSkipAdvice": ClipSkipAdvice,
    "ClipSkipUptake": ClipSkipUptake,
    "ClipSkipLayers": ClipSkipLayers,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "ClipSkip": "Clip Skip",
    "ClipSkipFromSettings": "Clip Skip from settings",
    "EncodeAtClipSkips": "Encode at Clip Skips",
    "ClipSkipSchedule": "Clip Skip schedule",
    "ClipSkipOfPhrase": "Clip Skip of a phrase",
    "ClipSkipSweep": "Clip Skip sweep",
    "ClipSkipAdvice": "Which Clip Skip?",
    "ClipSkipUptake": "LoRA uptake",
    "ClipSkipLayers": "Layers of a prompt",
}
WEB_DIRECTORY = "./web"

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS", "WEB_DIRECTORY"]
