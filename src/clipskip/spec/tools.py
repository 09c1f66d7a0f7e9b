"""The tools that have a Clip Skip, by the names that people type."""

import re
from enum import Enum

from clipskip.errors import SpecError


class Dialect(Enum):
    """A tool with its own way of counting."""

    A1111 = "a1111"
    A1111_L = "a1111-l-skip"
    FORGE = "forge"
    FORGE_NEO = "forge-neo"
    FORGE_CLASSIC = "forge-classic"
    REFORGE = "reforge"
    COMFYUI = "comfyui"
    SWARMUI = "swarmui"
    EFFICIENCY = "efficiency"
    EASYUSE = "easy-use"
    SDNEXT = "sdnext"
    DIFFUSERS = "diffusers"
    INVOKEAI = "invokeai"
    SDCPP = "stable-diffusion.cpp"
    KOHYA = "kohya"
    GEN_IMG = "gen_img"
    COMPEL = "compel"
    EASYDIFFUSION = "easydiffusion"
    ONETRAINER = "onetrainer"
    AITOOLKIT = "ai-toolkit"
    FOOOCUS = "fooocus"
    DRAWTHINGS = "draw-things"
    LORAMANAGER = "lora-manager"
    CLIPSKIP = "clipskip"

    @property
    def label(self) -> str:
        """The tool's name as its users write it."""
        return LABELS[self]

    @property
    def note(self) -> str:
        """Return a one-line note about the tool; often empty."""
        return NOTES.get(self, "")

    @classmethod
    def parse(cls, name: str) -> "Dialect":
        """Parse the tool that a user named: a1111, ComfyUI, "SD.Next", sd.cpp."""
        plain = _tool_key(name)
        for dialect in cls:
            if plain in (_tool_key(dialect.value), _tool_key(dialect.label), *OTHER_NAMES.get(dialect, ())):
                return dialect
        known = ", ".join(dialect.value for dialect in cls)
        raise SpecError(f"the tool {name[:40]!r} is unknown; use one of {known}", field="dialect")


def _tool_key(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


LABELS = {
    Dialect.CLIPSKIP: "clipskip",
    Dialect.A1111: "AUTOMATIC1111",
    Dialect.A1111_L: "AUTOMATIC1111 1.10 with Clip skip SDXL on",
    Dialect.FORGE: "Forge",
    Dialect.FORGE_NEO: "Forge Neo",
    Dialect.FORGE_CLASSIC: "Forge Classic",
    Dialect.REFORGE: "reForge",
    Dialect.COMFYUI: "ComfyUI",
    Dialect.SWARMUI: "SwarmUI",
    Dialect.EFFICIENCY: "Efficiency nodes",
    Dialect.EASYUSE: "Easy-Use nodes",
    Dialect.SDNEXT: "SD.Next",
    Dialect.DIFFUSERS: "diffusers",
    Dialect.INVOKEAI: "InvokeAI",
    Dialect.SDCPP: "stable-diffusion.cpp",
    Dialect.KOHYA: "kohya sd-scripts",
    Dialect.GEN_IMG: "kohya gen_img",
    Dialect.COMPEL: "compel",
    Dialect.EASYDIFFUSION: "Easy Diffusion",
    Dialect.ONETRAINER: "OneTrainer",
    Dialect.AITOOLKIT: "ai-toolkit",
    Dialect.FOOOCUS: "Fooocus",
    Dialect.DRAWTHINGS: "Draw Things",
    Dialect.LORAMANAGER: "LoRA Manager",
}

OTHER_NAMES = {
    # without spaces and punctuation
    Dialect.A1111: ("auto1111", "webui", "civitai"),
    Dialect.A1111_L: ("a1111110", "a1111l", "sdxlcliplskip"),
    Dialect.FORGE_NEO: ("neo",),
    Dialect.COMFYUI: ("comfy",),
    Dialect.SWARMUI: ("swarm",),
    Dialect.EFFICIENCY: ("efficientloader",),
    Dialect.INVOKEAI: ("invoke",),
    Dialect.SDCPP: ("sdcpp",),
    Dialect.KOHYA: ("kohyass", "sdscripts"),
    Dialect.GEN_IMG: ("kohyagenimg", "genimg"),
}

NOTES = {
    Dialect.CLIPSKIP: "Takes fractions, schedules, and a number for each encoder",
    Dialect.A1111: "Setting Clip skip (CLIP_stop_at_last_layers); the negative prompt follows it",
    Dialect.A1111_L: "Setting Clip skip, with the option sdxl_clip_l_skip",
    Dialect.FORGE: "The slider is hidden and reset to 1 by the presets xl and flux",
    Dialect.REFORGE: "Dynamic clip skip gives each step its own: 4->2, or values as 9,7,4",
    Dialect.COMFYUI: "stop_at_clip_layer of CLIPSetLastLayer; the last such node before an encoder counts",
    Dialect.SWARMUI: "CLIP Stop At Layer, off unless it is switched on",
    Dialect.EFFICIENCY: "clip_skip of the Efficient Loader, which is CLIPSetLastLayer's number",
    Dialect.EASYUSE: "clip_skip of its loaders, which is CLIPSetLastLayer's number",
    Dialect.SDNEXT: "Locked until it is enabled in the settings; takes fractions",
    Dialect.DIFFUSERS: "The negative prompt ignores it: hand over negative_prompt_embeds for A1111's picture",
    Dialect.INVOKEAI: "Counts the layers that are skipped",
    Dialect.SDCPP: "--clip-skip; 0 and below mean the family's default",
    Dialect.KOHYA: "--clip_skip of the trainers; written to LoRAs as ss_clip_skip",
    Dialect.GEN_IMG: "--clip_skip of gen_img.py",
    Dialect.COMPEL: "ReturnedEmbeddingsType; it has no deeper layers",
    Dialect.EASYDIFFUSION: "A switch",
    Dialect.ONETRAINER: "Counts the layers that are skipped",
    Dialect.DRAWTHINGS: "clip_skip in its pictures, and CLIP Skip in their text when above 1",
    Dialect.LORAMANAGER: "usage_tips.clip_skip beside a LoRA: a recommendation that nothing applies",
}
