"""Every kind of module that a file may hold is applied by its formula, or refused by its name; nothing else happens."""

from itertools import combinations
from pathlib import Path

import pytest
import torch
from lora_tools import GROUP_NORM, PROJ, TEXT_NORM, TO_K, TO_OUT, Q, module_of, tiny_models, weight_of, write_kohya
from torch import Tensor, nn

from clipskip.errors import ClipskipError, LoraError
from clipskip.weights.lora import load_lora, merged
from clipskip.weights.lora.key_map import NAMED

STRENGTH = 0.5
TOKENS = "text_encoder.embeddings.token_embedding"


@pytest.fixture(scope="module")
def models() -> dict[str, nn.Module]:
    return tiny_models()


def bias_of(models: dict[str, nn.Module], name: str) -> Tensor | None:
    bias = module_of(models, name).bias
    return bias.detach().clone() if isinstance(bias, Tensor) else None


@pytest.mark.parametrize("name", [PROJ, Q, TEXT_NORM, GROUP_NORM, TO_OUT, TO_K])
@pytest.mark.parametrize("part", ["diff_b", "b_norm"])
def test_a_change_of_the_bias_alone_is_added_and_leaves_the_weight(
    part: str, name: str, models: dict[str, nn.Module], tmp_path: Path
) -> None:
    weight, before = weight_of(models, name), bias_of(models, name)
    change = torch.randn(len(weight))
    file = write_kohya(tmp_path / "bias.safetensors", {name: {part: change}})
    if part == "b_norm" and weight.dim() > 1:
        with pytest.raises(LoraError, match=r"norm.*b_norm"), merged(models, [(load_lora(file), 1.0, 1.0)]):
            pass
        return
    with merged(models, [(load_lora(file), STRENGTH, STRENGTH)]):
        assert torch.equal(weight_of(models, name), weight)
        # Where there is no bias (to_k) one is put in its place for as long as the LoRA lasts.
        expected = (torch.zeros(len(weight)) if before is None else before) + STRENGTH * change
        torch.testing.assert_close(bias_of(models, name), expected, rtol=0, atol=1e-7)
    after = bias_of(models, name)
    assert after is None if before is None else torch.equal(after, before)


@pytest.mark.parametrize("strength", [0.5, 1.0, -1.0])
def test_set_weight_replaces_the_weight_at_every_strength_but_0(
    strength: float, models: dict[str, nn.Module], tmp_path: Path
) -> None:
    """ComfyUI alone reads such files, and copies the weight whatever the strength (comfy/lora.py, patch type "set")."""
    whole = torch.randn_like(weight_of(models, TO_K))
    lora = load_lora(write_kohya(tmp_path / "set.safetensors", {TO_K: {"set_weight": whole}}))
    with merged(models, [(lora, strength, strength)]):
        torch.testing.assert_close(weight_of(models, TO_K), whole, rtol=0, atol=1e-6)
    assert any("at every strength" in warning for warning in lora.warnings)


def test_a_bias_that_the_module_cannot_use_is_refused(models: dict[str, nn.Module], tmp_path: Path) -> None:
    rows = len(weight_of(models, TOKENS))
    lora = load_lora(write_kohya(tmp_path / "b.safetensors", {TOKENS: {"diff_b": torch.ones(rows)}}))
    with pytest.raises(LoraError, match="token_embedding"), merged(models, [(lora, 1.0, 1.0)]):
        pass


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"diff_b": (32,), "dora_scale": (32, 1)}, "has no weights"),
        ({"diff": (32, 32), "bias_indices": (2, 3)}, "lacks bias_size and bias_values"),
        ({"set_weight": (32, 32), "dora_scale": (32, 1)}, "dora_scale beside set"),
        ({"set_weight": (32, 32), "lora_up.weight": (32, 4), "lora_down.weight": (4, 32)}, "mixes LoRA and set"),
        ({"diff": (32, 32), "w_norm": (32,)}, "mixes full and norm"),
        ({"reshape_weight": (2,)}, "reshape_weight"),
    ],
)
def test_parts_that_do_not_go_together_are_named(parts: dict[str, tuple[int, ...]], told: str, tmp_path: Path) -> None:
    file = write_kohya(tmp_path / "odd.safetensors", {Q: {part: torch.ones(size) for part, size in parts.items()}})
    with pytest.raises(ClipskipError, match=told):
        load_lora(file)


PARTS = (
    *NAMED,
    "lora_up.weight",
    "lora_down.weight",
    "lora_mid.weight",
    "alpha",
    "lora_magnitude_vector",
    "lora_B.bias",
)


@pytest.mark.parametrize("size", [(), (1,), (4,), (4, 4), (2, 2, 2, 2), (0,)])
def test_any_part_of_any_shape_is_an_answer_and_never_a_fault(
    size: tuple[int, ...], models: dict[str, nn.Module], tmp_path: Path
) -> None:
    """Every part alone and, as single numbers, every two."""
    before = {name: weight_of(models, name) for name in (Q, TEXT_NORM)}
    for parts in [*((part,) for part in PARTS), *(combinations(PARTS, 2) if size == () else ())]:
        for name in before if len(parts) == 1 else (Q,):
            file = write_kohya(tmp_path / "any.safetensors", {name: {part: torch.ones(size) for part in parts}})
            try:
                with merged(models, [(load_lora(file), 1.0, 1.0)]):
                    pass
            except ClipskipError as error:
                assert "any.safetensors" in str(error) or "'any'" in str(error)
    assert all(torch.equal(weight_of(models, name), weight) for name, weight in before.items())


@pytest.mark.parametrize(
    "scalar", ["lora_up.weight", "lora_down.weight", "hada_w1_b", "lokr_w2_b", "a1.weight", "oft_blocks"]
)
def test_a_single_number_where_a_matrix_belongs_is_refused_by_name(
    scalar: str, models: dict[str, nn.Module], tmp_path: Path
) -> None:
    kinds = (
        ("lora_up.weight", "lora_down.weight"),
        ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
        ("lokr_w1", "lokr_w2_a", "lokr_w2_b"),
        ("a1.weight", "a2.weight", "b1.weight", "b2.weight"),
        ("oft_blocks",),
    )
    whole = next(kind for kind in kinds if scalar in kind)
    parts = {part: torch.tensor(1.0) if part == scalar else torch.ones(32, 32) for part in whole}
    file = write_kohya(tmp_path / "flat.safetensors", {Q: parts})
    with pytest.raises(LoraError, match=r"layers\.0\.self_attn\.q_proj"), merged(models, [(load_lora(file), 1.0, 1.0)]):
        pass
