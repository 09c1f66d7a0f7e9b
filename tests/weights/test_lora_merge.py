"""LoRAs in the weights, and out of them again."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path

import peft
import pytest
import torch
from lora_tools import (
    CONV,
    GROUP_NORM,
    MLP,
    TO_K,
    TO_OUT,
    Q,
    kohya,
    low_rank,
    merge_once,
    module_of,
    relative,
    tiny_models,
    weight_of,
    write,
    write_kohya,
)
from torch import Tensor, nn

from clipskip.errors import LoraError
from clipskip.weights.lora import Lora, load_lora, merged, module_names

Models = dict[str, nn.Module]


@pytest.fixture(scope="module")
def shared() -> Models:
    return tiny_models()


@pytest.fixture
def models(shared: Models) -> Iterator[Models]:
    """The models; every test must leave them bit for bit as they were."""
    before = state(shared)
    yield shared
    assert same(before, state(shared))


def state(models: Models) -> dict[str, Tensor]:
    return {f"{part}.{n}": v.clone() for part, model in models.items() for n, v in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def make(folder: Path, models: Models, *names: str, rank: int = 4, name: str = "lora", seed: int = 1) -> Lora:
    """A LoRA for these modules, alpha half its rank."""
    parts = {n: low_rank(weight_of(models, n), rank, seed=seed) | {"alpha": torch.tensor(rank / 2)} for n in names}
    return load_lora(write_kohya(folder / f"{name}.safetensors", parts))


def product(lora: Lora, name: str, strength: float = 1.0) -> Tensor:
    """The formula: strength * alpha / rank * up @ down, in float64."""
    parts = lora.modules[name].parts
    scale = float(parts["alpha"]) / parts["down"].shape[0]
    return strength * scale * (parts["up"].flatten(1).double() @ parts["down"].flatten(1).double())


def test_weights_come_back_bit_for_bit(models: Models, tmp_path: Path) -> None:
    lora = make(tmp_path, models, Q, TO_K, CONV)
    before = state(models)
    with merged(models, [(lora, 1.0, 1.0)]):
        assert not same(before, state(models))
    assert same(before, state(models))


def test_weights_come_back_when_the_body_raises(models: Models, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), merged(models, [(make(tmp_path, models, Q, TO_K), 1.0, 1.0)]):
        raise KeyboardInterrupt


def test_strength_0_touches_nothing(models: Models, tmp_path: Path) -> None:
    before = state(models)
    with merged(models, [(make(tmp_path, models, Q, TO_K), 0.0, 0.0)]):
        assert same(before, state(models))


def test_each_part_has_its_own_strength(models: Models, tmp_path: Path) -> None:
    lora = make(tmp_path, models, Q, TO_K)
    q, to_k = weight_of(models, Q), weight_of(models, TO_K)
    with merged(models, [(lora, 0.5, -2.0)]):
        assert relative(weight_of(models, Q), q + product(lora, Q, 0.5), q) < 1e-6  # float32 rounding
        assert relative(weight_of(models, TO_K), to_k + product(lora, TO_K, -2.0), to_k) < 1e-6


def test_only_what_a_lora_touches_is_copied(models: Models, tmp_path: Path) -> None:
    before = {name: module_of(models, name).weight.data_ptr() for name in module_names(models)}
    with merged(models, [(make(tmp_path, models, Q, CONV), 1.0, 1.0)]):
        after = {name: module_of(models, name).weight.data_ptr() for name in before}
    assert {name for name in before if before[name] != after[name]} == {Q, CONV}


def test_a_part_that_is_not_given_is_left_alone(models: Models, tmp_path: Path) -> None:
    with merged({"text_encoder": models["text_encoder"]}, [(make(tmp_path, models, Q, TO_K), 1.0, 1.0)]):
        pass


def test_a_second_merge_into_the_same_model_is_refused(models: Models, tmp_path: Path) -> None:
    lora = make(tmp_path, models, Q)
    with (
        merged(models, [(lora, 1.0, 1.0)]),
        pytest.raises(LoraError, match="already merged"),
        merged({"text_encoder": models["text_encoder"]}, [(lora, 1.0, 1.0)]),
    ):
        pass


def test_several_loras_add_up(models: Models, tmp_path: Path) -> None:
    first, second = make(tmp_path, models, Q), make(tmp_path, models, Q, rank=2, name="b", seed=2)
    base = weight_of(models, Q)
    with merged(models, [(first, 0.8, 1.0), (second, 0.5, 1.0), (first, 0.1, 1.0)]):
        expected = base + product(first, Q, 0.9) + product(second, Q, 0.5)
        assert relative(weight_of(models, Q), expected, base) < 1e-6  # float32 rounding


def test_later_loras_change_what_earlier_ones_left(models: Models, tmp_path: Path) -> None:
    lora = make(tmp_path, models, Q)
    factor = {"weight": torch.full((32,), 0.5), "on_input": torch.tensor(0)}
    ia3 = load_lora(write_kohya(tmp_path / "ia3.safetensors", {Q: factor}))
    base = weight_of(models, Q)
    with merged(models, [(lora, 1.0, 1.0), (ia3, 1.0, 1.0)]):
        assert relative(weight_of(models, Q), 1.5 * (base + product(lora, Q)), base) < 1e-6  # float32 rounding
    with merged(models, [(ia3, 1.0, 1.0), (lora, 1.0, 1.0)]):
        assert relative(weight_of(models, Q), 1.5 * base + product(lora, Q), base) < 1e-6


def test_alphas_and_ranks_may_differ_from_module_to_module(models: Models, tmp_path: Path) -> None:
    plan = {Q: (4, 2.0), MLP: (2, 8.0), TO_K: (8, None), TO_OUT: (1, 0.25)}
    parts = {name: low_rank(weight_of(models, name), rank) for name, (rank, _) in plan.items()}
    for name, (_, alpha) in plan.items():
        parts[name] |= {} if alpha is None else {"alpha": torch.tensor(alpha)}
    lora = load_lora(write_kohya(tmp_path / "mixed.safetensors", parts))
    base = {name: weight_of(models, name) for name in plan}
    with merged(models, [(lora, 1.0, 1.0)]):
        for name, (rank, alpha) in plan.items():
            scale = 1.0 if alpha is None else alpha / rank
            up, down = (parts[name][f"lora_{end}.weight"].double() for end in ("up", "down"))
            assert relative(weight_of(models, name), base[name] + scale * up @ down, base[name]) < 1e-6


def test_a_uniform_file_of_peft_acts_as_in_peft(models: Models, tmp_path: Path) -> None:
    targets = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.2", "conv1"]
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=targets, init_lora_weights=False)
    theirs = peft.get_peft_model(copy.deepcopy(models["unet"]), config)
    theirs.save_pretrained(tmp_path)  # adapter_model.safetensors, with alpha in adapter_config.json beside it
    lora = load_lora(tmp_path / "adapter_model.safetensors")
    assert {module.scale for module in lora.modules.values()} == {1.5}
    latent, text = torch.randn(1, 4, 8, 8), torch.randn(1, 7, 32)
    with torch.no_grad(), merged(models, [(lora, 1.0, 1.0)]):
        ours = models["unet"](latent, 3, text).sample
        reference = theirs(latent, 3, text).sample
        # Merged weights against a side branch: 30 layers of float32 rounding.
        assert float((ours - reference).abs().max() / reference.abs().max()) < 1e-5


def test_alpha_in_diffusers_metadata_scales_and_a_pattern_wins(models: Models, tmp_path: Path) -> None:
    settings = {"unet.lora_alpha": 8, "unet.r": 4, "unet.alpha_pattern": {TO_K.removeprefix("unet."): 2}}
    parts = {name: low_rank(weight_of(models, name), 4) for name in (TO_K, TO_OUT)}
    tensors = {
        f"{n}.lora_{x}.weight": parts[n][f"lora_{y}.weight"] for n in parts for x, y in (("A", "down"), ("B", "up"))
    }
    lora = load_lora(
        write(tmp_path / "d.safetensors", tensors, metadata={"lora_adapter_metadata": json.dumps(settings)})
    )
    assert {name: module.scale for name, module in lora.modules.items()} == {TO_K: 0.5, TO_OUT: 2.0}
    assert "A1111 uses the rank" in lora.warnings[0]


def test_a_bfloat16_model_is_rounded_once(models: Models, tmp_path: Path) -> None:
    low = {part: copy.deepcopy(model).to(torch.bfloat16) for part, model in models.items()}
    lora = make(tmp_path, models, TO_K)
    base = weight_of(low, TO_K)
    assert base.dtype == torch.bfloat16
    expected = (base.double() + product(lora, TO_K)).to(torch.bfloat16)
    difference = (merge_once(low, lora, TO_K).double() - expected.double()).abs()
    # One unit in the last place where float32 and float64 fall on two sides of a rounding border.
    assert float((difference / expected.double().abs()).max()) <= 2**-7


def test_a_channels_last_model_stays_so(models: Models, tmp_path: Path) -> None:
    unet = copy.deepcopy(models["unet"]).to(memory_format=torch.channels_last)
    with merged({"unet": unet}, [(make(tmp_path, models, CONV), 1.0, 1.0)]):
        assert unet.get_submodule(CONV.removeprefix("unet.")).weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("name", "strength"), [(TO_OUT, 1.0), (TO_K, 0.5)])
def test_diff_b_changes_a_bias_or_makes_one(name: str, strength: float, models: Models, tmp_path: Path) -> None:
    module = module_of(models, name)
    before = None if module.bias is None else module.bias.detach().clone()
    added = torch.arange(float(len(module.weight)))
    parts = {"diff": torch.zeros_like(module.weight), "diff_b": added}
    with merged(models, [(load_lora(write_kohya(tmp_path / "b.safetensors", {name: parts})), 1.0, strength)]):
        assert torch.equal(module.bias, (0 if before is None else before) + strength * added)
    assert (module.bias is None) == (before is None)


def test_a_norms_bias_is_changed_with_its_weight(models: Models, tmp_path: Path) -> None:
    module = module_of(models, GROUP_NORM)
    size = len(module.weight)
    parts = {"w_norm": torch.zeros(size), "b_norm": torch.ones(size)}
    before = module.bias.detach().clone()
    with merged(models, [(load_lora(write_kohya(tmp_path / "n.safetensors", {GROUP_NORM: parts})), 1.0, 2.0)]):
        assert torch.equal(module.bias, before + 2)


def test_a_misfit_is_named_before_anything_is_changed(models: Models, tmp_path: Path) -> None:
    good = make(tmp_path, models, Q)
    wrong = load_lora(write_kohya(tmp_path / "w.safetensors", {TO_K: low_rank(torch.ones(320, 768), 4)}))
    before = state(models)
    with pytest.raises(LoraError) as error, merged(models, [(good, 1.0, 1.0), (wrong, 1.0, 1.0)]):
        pass
    assert same(before, state(models))
    for told in (TO_K, "[320, 4]", "[4, 768]", "[32, 32]"):
        assert told in str(error.value)


@pytest.mark.parametrize(
    "parts",
    [
        {"lora_up.weight": torch.ones(64, 4), "lora_down.weight": torch.ones(4, 16)},  # as many numbers, another shape
        {"lora_up.weight": torch.ones(32, 4), "lora_down.weight": torch.ones(3, 32)},
        {"weight": torch.ones(1), "on_input": torch.tensor(1)},
        {"oft_blocks": torch.ones(7, 4, 4)},
        {"oft_blocks": torch.ones(9, 8, 4, 4)},
        {"lokr_w1": torch.ones(4, 4), "lokr_w2": torch.ones(4, 16)},
        {"diff": torch.ones(32, 32), "diff_b": torch.ones(31)},
        {"lora_up.weight": torch.ones(32, 4), "lora_down.weight": torch.ones(4, 32), "dora_scale": torch.ones(31, 1)},
        {"lora_up.weight": torch.ones(32, 4), "lora_down.weight": torch.ones(4, 32), "bias": torch.ones(32)},
        {"w_norm": torch.ones(32), "b_norm": torch.ones(32)},
    ],
)
def test_parts_of_another_shape_are_refused(parts: dict[str, Tensor], models: Models, tmp_path: Path) -> None:
    file = write_kohya(tmp_path / "w.safetensors", {TO_K: parts})
    with pytest.raises(LoraError, match=r"does not fit|different ranks"):
        merge_once(models, file, TO_K)


@pytest.mark.parametrize(
    "parts",
    [
        {"diff": torch.tensor(1.0)},
        {"oft_blocks": torch.tensor(1.0)},
        {"lora_up.weight": torch.ones(32, 4), "lora_down.weight": torch.ones(4, 32), "dora_scale": torch.tensor(1.0)},
    ],
)
def test_a_part_that_is_one_number_is_named_with_its_shape(
    parts: dict[str, Tensor], models: Models, tmp_path: Path
) -> None:
    file = write_kohya(tmp_path / "w.safetensors", {TO_K: parts})
    with pytest.raises(LoraError, match=r"(diff|oft_blocks|dora_scale|magnitude) \[\]"):
        merge_once(models, file, TO_K)


def test_a_deeper_text_encoders_lora_names_the_layers(models: Models, tmp_path: Path) -> None:
    parts = low_rank(torch.ones(32, 32), 4)
    names = [f"text_encoder.encoder.layers.{i}.self_attn.q_proj" for i in range(23)]
    lora = load_lora(write_kohya(tmp_path / "sd2.safetensors", dict.fromkeys(names, parts)))
    with pytest.raises(LoraError, match=r"layers 13 to 23, but this model's text encoder has 12 layers"):
        merge_once(models, lora, Q)


def test_an_sdxl_lora_is_refused_with_its_family(models: Models, tmp_path: Path) -> None:
    keys = (
        "lora_te1_text_model_encoder_layers_0_mlp_fc1",
        "lora_te2_text_model_encoder_layers_31_mlp_fc1",
        "lora_unet_output_blocks_0_1_transformer_blocks_9_attn1_to_q",
    )
    file = write(
        tmp_path / "xl.safetensors", {f"{k}.lora_{e}.weight": torch.ones(4, 4) for k in keys for e in ("up", "down")}
    )
    with pytest.raises(LoraError, match="SDXL"):
        load_lora(file)
    with pytest.raises(LoraError, match="lora_te2"):
        merge_once(models, load_lora(file, family=None), Q)


def test_a_bundled_embedding_of_another_width_is_refused(models: Models, tmp_path: Path) -> None:
    lora = load_lora(write(tmp_path / "e.safetensors", {"bundle_emb.reed.emb_params": torch.ones(1, 768)}))
    with pytest.raises(LoraError, match="768 wide; this model reads 32"), merged(models, [(lora, 1.0, 1.0)]):
        pass


def test_a_strength_that_is_no_number_is_refused(models: Models, tmp_path: Path) -> None:
    with (
        pytest.raises(LoraError, match="strength nan"),
        merged(models, [(make(tmp_path, models, Q), float("nan"), 1.0)]),
    ):
        pass


def test_layers_beyond_the_skip_are_untouched_by_a_lora_on_the_last(models: Models, tmp_path: Path) -> None:
    ids = torch.arange(1, 8)[None]
    lora = make(tmp_path, models, MLP)
    with torch.no_grad():
        plain = models["text_encoder"](ids, output_hidden_states=True).hidden_states
        with merged(models, [(lora, 1.0, 1.0)]):
            changed = models["text_encoder"](ids, output_hidden_states=True).hidden_states
    assert [torch.equal(a, b) for a, b in zip(plain, changed, strict=True)] == [True] * 12 + [False]
    assert kohya(MLP).startswith("lora_te_text_model_encoder_layers_11_")
