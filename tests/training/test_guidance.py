"""What lowers the guidance that a UNet wants: one layer of cross-attention, and a LoRA's file."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

sys.path.append(str(Path(__file__).parents[2] / "training"))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_prompt_is_left_with_its_share(share: float) -> None:
    """Through one layer the share is exact (1e-5, float32): share times the answer, and the rest of the empty prompt's.

    Queries are zero here, so that the empty prompt's answer is the same for all latents, and its mean exact.
    """
    from diffusers.models.attention_processor import Attention
    from guidance import MEASURED, damp

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.attn2 = Attention(query_dim=8, cross_attention_dim=6, heads=2, dim_head=4)
            torch.nn.init.zeros_(self.attn2.to_q.weight)

        def forward(self, latent: torch.Tensor, t: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
            return self.attn2(latent.flatten(2).mT.repeat(1, 1, 2), encoder_hidden_states=context)

    network, damped = Network(), Network()
    latent, empty, t = torch.randn(MEASURED, 4, 4, 4), torch.randn(5, 6), torch.zeros(MEASURED)
    pairs = SimpleNamespace(batch=lambda count, generator: (latent[:count], None), empty=empty)
    damp(damped, pairs, share)  # type: ignore[arg-type]
    x, context = torch.randn(MEASURED, 4, 4, 4), torch.randn(MEASURED, 5, 6)
    with torch.no_grad():
        answer, seen = network(x, t, context), damped(x, t, context)
        of_empty = network(x, t, empty.expand(MEASURED, -1, -1))
    assert (seen - (share * answer + (1 - share) * of_empty)).abs().max() < 1e-5
    assert (answer - of_empty).abs().max() > 0.01


def test_a_lora_is_damped_in_the_same_values_alone_and_names_its_model(tmp_path: Path) -> None:
    from guidance import damp_lora

    from clipskip.weights import hash_file

    names = ("attn2_to_v.lora_up", "attn2_to_v.lora_down", "attn2_to_k.lora_up", "attn1_to_v.lora_up")
    tensors = {f"lora_unet_x_{name}.weight": torch.ones(2, 2) for name in names}
    save_file(tensors, tmp_path / "a.safetensors", metadata={"ss_output_name": "a"})
    save_file({"w": torch.ones(1)}, tmp_path / "model.safetensors")
    damp_lora(tmp_path / "a.safetensors", tmp_path / "out", model=tmp_path / "model.safetensors", share=0.25)
    with safe_open(tmp_path / "out" / "a.safetensors", "pt") as file:
        said, values = file.metadata(), {key: float(file.get_tensor(key).mean()) for key in file.keys()}  # noqa: SIM118
    assert values == {f"lora_unet_x_{name}.weight": 0.25 if name == names[0] else 1.0 for name in names}
    weaker = tmp_path / "weaker"
    damp_lora(tmp_path / "a.safetensors", weaker, model=tmp_path / "model.safetensors", share=0.5, strength=0.5)
    with safe_open(weaker / "a.safetensors", "pt") as file:
        values = {key: float(file.get_tensor(key).mean()) for key in file.keys()}  # noqa: SIM118
    assert values == dict(zip((f"lora_unet_x_{name}.weight" for name in names), (0.25, 1.0, 0.5, 0.5), strict=True))
    assert said["ss_new_sd_model_hash"] == hash_file(tmp_path / "model.safetensors").sha256
    assert said["sshs_model_hash"] == hash_file(tmp_path / "out" / "a.safetensors").data_sha256
