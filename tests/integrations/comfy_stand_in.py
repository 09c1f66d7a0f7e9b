"""A stand-in for ComfyUI that keeps to its interface, for machines without it: none of its code is here.

The CLIP answers `clone`, `clip_layer`, `tokenize`, `encode_from_tokens_scheduled`, `get_sd` and `add_patches` as ComfyUI 0.3.64's does, by
transformers' encoders; what it bends (a layer that is too deep is the last one) it bends too.
"""

import sys
from types import ModuleType
from typing import Any

import torch
from clip_reference import random_model, tokenizer
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from clipskip.networks import TextShape

START, END = 49406, 49407
L = TextShape(depth=12, width=64, heads=1, mlp_width=96)
G = TextShape(depth=32, width=128, heads=2, mlp_width=96, activation="gelu", projection=128)


class Clip:
    """CLIP-L alone ("l"), both encoders of SDXL ("lg"), or names of other encoders, which are not read."""

    def __init__(self, names: str = "l") -> None:
        self.names, self.layer = names, None
        self.models: dict[str, Any] = {}
        if "l" in names:
            self.models["l"] = random_model(L)
        if "g" in names:
            torch.manual_seed(7)
            config = CLIPTextConfig(**G.config(), bos_token_id=START, eos_token_id=END)
            self.models["g"] = CLIPTextModelWithProjection(config).eval().requires_grad_(False)
        self.patches: dict[str, Tensor] = {}

    def clone(self) -> "Clip":
        other = Clip.__new__(Clip)
        other.__dict__.update(self.__dict__, patches=dict(self.patches))
        return other

    def clip_layer(self, layer: int) -> None:
        self.layer = layer

    def tokenize(self, text: str) -> dict[str, list[list[tuple[Any, float]]]]:
        words, _, weight = text.partition("::")
        ids = [START, *tokenizer()(words, add_special_tokens=False)["input_ids"], END]
        factor = float(weight or 1)
        pads = {"l": END, "g": 0}
        return {
            name: [[(i, factor if i < START else 1.0) for i in ids] + [(pads.get(name, 0), 1.0)] * (77 - len(ids))]
            for name in self.names
        }

    def get_sd(self) -> dict[str, Tensor]:
        weights = {}
        for name, model in self.models.items():
            for key, tensor in model.state_dict().items():
                nested = key if key.startswith("text_") else f"text_model.{key}"
                full = f"clip_{name}.transformer.{nested}"
                weights[full] = tensor + self.patches.get(full, 0)
        return weights

    def encode_from_tokens_scheduled(
        self, tokens: Any, unprojected: bool = False, add_dict: dict[str, Any] | None = None, show_pbar: bool = True
    ) -> list[Any]:
        sides, pooled = [], None
        for name in self.names:
            side, pooled = self._read(name, tokens[name])
            sides.append(side)
        return [[torch.cat(sides, -1), {"pooled_output": pooled, **(add_dict or {})}]]

    @torch.no_grad()
    def _read(self, name: str, sections: Any) -> tuple[Tensor, Any]:
        model, own = self.models[name], self.get_sd()
        start = f"clip_{name}.transformer."
        state = {key.removeprefix(start): tensor for key, tensor in own.items() if key.startswith(start)}
        names = set(model.state_dict())
        patched = {k if k in names else k.removeprefix("text_model."): v for k, v in state.items()}
        pad = sections[0][-1][0]
        rows = [[token for token, _ in section] for section in sections]
        rows.append([START, END, *[pad] * 75])
        out = torch.func.functional_call(model, patched, (torch.tensor(rows),), {"output_hidden_states": True})
        depth, alone = len(out.hidden_states) - 1, "g" not in self.names
        layer = self.layer if self.layer is not None and abs(self.layer) <= depth else (-1 if alone else -2)
        hidden = out.hidden_states[layer]
        if alone:
            norm = (patched["final_layer_norm.weight"], patched["final_layer_norm.bias"])
            hidden = torch.nn.functional.layer_norm(hidden, hidden.shape[-1:], *norm)
        weights = torch.tensor([[weight for _, weight in section] for section in sections])[..., None]
        weighted = (hidden[:-1] - hidden[-1:]) * weights + hidden[-1:]
        return weighted.flatten(0, 1)[None], out.text_embeds[:1] if name == "g" else None


def install(monkeypatch: Any, output: str) -> None:
    """ComfyUI's modules, as far as the nodes import them."""

    def sample(
        model: Any, noise: Tensor, steps: int, cfg: float, sampler: str, scheduler: str, *rest: Any, **more: Any
    ) -> Tensor:
        positive, negative = rest[0], rest[1]
        model.calls += 1
        return noise * 0.1 + positive[0][0].mean() * cfg - negative[0][0].mean()

    class Samplers:
        SAMPLERS, SCHEDULERS = ["euler"], ["normal"]

    class ProgressBar:
        def __init__(self, total: int) -> None:
            self.total = total

        def update_absolute(self, value: int, total: int | None = None, preview: Any = None) -> None:
            assert 0 < value <= self.total and preview[0] == "JPEG"

    modules = {
        "comfy": {},
        "comfy.sample": {
            "fix_empty_latent_channels": lambda model, latent: latent,
            "prepare_noise": lambda latent, seed: torch.randn(
                latent.shape, generator=torch.Generator().manual_seed(seed)
            ),
            "sample": sample,
        },
        "comfy.samplers": {"KSampler": Samplers},
        "comfy.utils": {"ProgressBar": ProgressBar},
        "folder_paths": {
            "get_output_directory": lambda: output,
            "get_filename_list": lambda kind: [f"{kind}.safetensors"],
        },
    }
    for name, parts in modules.items():
        module = ModuleType(name)
        module.__dict__.update(parts)
        monkeypatch.setitem(sys.modules, name, module)
        head, _, tail = name.partition(".")
        if tail:
            setattr(sys.modules[head], tail, module)
