"""A LoRA as users name it."""

import math
import re
from dataclasses import dataclass

from clipskip.errors import SpecError

AIR_START = r"(?:urn:)?(?:air:)?\w+:[a-z]+:(?:civitai|huggingface):"
"""An AIR has colons of its own before those of the strengths: urn:air:sd1:lora:civitai:16615@19565:0.8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraRef:
    """One LoRA with its strengths, as in `<lora:name:text_encoder:unet>`."""

    name: str
    """File stem, alias or path, as the user wrote it."""
    text_encoder: float = 1.0
    unet: float = 1.0
    hash: str = ""
    """AutoV3, 12 hex digits (sha256 of everything after the safetensors header); empty until resolved."""

    def __post_init__(self) -> None:
        for value in (self.text_encoder, self.unet):
            if not math.isfinite(value):
                raise SpecError(
                    f"LoRA {self.name!r} has strength {value}; give a finite number such as 0.8", field="lora"
                )

    @classmethod
    def parse(cls, text: str) -> "LoraRef":
        """Parse the LoRA that a user typed: name, name:0.8 or name:text_encoder:unet."""
        match = re.fullmatch(rf"({AIR_START}[^:]+|.+?)((?::[^:/\\]*){{0,2}})", text.strip())
        if match is None:
            raise SpecError("a LoRA needs a name: --lora name, or name:0.8", field="lora")
        try:
            strengths = [float(part) for part in match[2].split(":")[1:]]
        except ValueError:
            raise SpecError(f"LoRA {text!r}: a strength is a number, as in {match[1]}:0.8", field="lora") from None
        te = strengths[0] if strengths else 1.0
        return cls(name=match[1], text_encoder=te, unet=strengths[1] if len(strengths) > 1 else te)

    @property
    def tag(self) -> str:
        """The LoRA as a tag in A1111's prompts."""
        te, unet = f"{self.text_encoder:g}", f"{self.unet:g}"
        return f"<lora:{self.name}:{te}>" if te == unet else f"<lora:{self.name}:{te}:{unet}>"
