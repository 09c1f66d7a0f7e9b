"""Our names for tensors are diffusers' own, for every tensor of an SD 1.x file, there and back."""

import json
from pathlib import Path

import pytest
import torch
from diffusers.loaders import single_file_utils as theirs
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from clipskip.networks import TextShape, UNetShape, VAEShape, tensors_of
from clipskip.weights.keys import canonical, ldm_names, split_parts
from clipskip.weights.tensors import cut

GOLDEN = Path(__file__).parents[1] / "golden" / "sd15-single-file.json"
SD15 = {name: tuple(shape) for name, shape in json.loads(GOLDEN.read_text())["tensors"].items()}
TEXT = TextShape(depth=2, width=64, heads=1, mlp_width=256)


def numbered(names: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """A tensor per name, of the right number of axes, whose value tells it from all others."""
    return {name: torch.full((1,) * len(shape), float(i)) for i, (name, shape) in enumerate(names.items())}


def values(state: dict[str, torch.Tensor]) -> dict[str, tuple[float, int]]:
    """Name -> which tensor it is, and how many axes it has now."""
    return {name: (tensor.item(), tensor.dim()) for name, tensor in state.items()}


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_names_of_an_sd15_file_are_those_that_diffusers_gives(part: str) -> None:
    state = numbered(SD15)
    config = {"layers_per_block": 2, "down_block_types": [""] * 4, "up_block_types": [""] * 4}
    convert = {"unet": theirs.convert_ldm_unet_checkpoint, "vae": theirs.convert_ldm_vae_checkpoint}[part]
    ours = {name: (state[source.name].item(), len(source.shape)) for name, source in canonical(SD15)[part].items()}
    assert ours == values(convert(dict(state), config))


def test_the_text_encoder_of_an_sd15_file_has_flat_names_and_no_position_ids() -> None:
    text = canonical(SD15)["text_encoder"]
    assert {name: source.shape for name, source in text.items()} == tensors_of(
        TextShape(depth=12, width=768, heads=12, mlp_width=3072)
    )


def test_every_tensor_of_an_sd15_file_has_a_name_and_finds_its_way_back() -> None:
    back = set()
    for part, sources in canonical(SD15).items():
        names = ldm_names(part, {name: source.shape for name, source in sources.items()})
        assert all(names[name] == source.name for name, source in sources.items())
        back |= set(names.values())
    assert set(SD15) - back == {"cond_stage_model.transformer.text_model.embeddings.position_ids"}


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_other_sizes_find_their_way_there_and_back(layers: int) -> None:
    unet = tensors_of(
        UNetShape(
            block_out_channels=(64, 128, 192),
            layers_per_block=layers,
            cross_attention_dim=64,
            attention=(False, True, True),
            attention_heads=(4, 4, 4),
        )
    )
    vae = tensors_of(VAEShape(block_out_channels=(32, 64), layers_per_block=layers))
    for part, tensors in (("unet", unet), ("vae", vae)):
        ldm = ldm_names(part, tensors)
        found = canonical({name: tensors[ours] for ours, name in ldm.items()})[part]
        assert {name: source.name for name, source in found.items()} == ldm


@pytest.mark.parametrize(
    "prefix",
    [
        "cond_stage_model.transformer.text_model.",
        "cond_stage_model.transformer.",
        "state_dict.cond_stage_model.transformer.text_model.",
        "conditioner.embedders.0.transformer.text_model.",
        "text_encoder/text_model.",
        "text_encoder/",
        "text_model.",
        "",
    ],
)
def test_a_text_encoder_is_found_under_every_prefix(prefix: str) -> None:
    tensors = tensors_of(TEXT)
    found = canonical({prefix + name: shape for name, shape in tensors.items()})["text_encoder"]
    assert {name: source.shape for name, source in found.items()} == tensors


@pytest.mark.parametrize(
    "prefix", ["model.diffusion_model.", "diffusion_model.", "state_dict.model.diffusion_model.", ""]
)
def test_a_unet_is_found_under_every_prefix(prefix: str) -> None:
    plain = {n.removeprefix("model.diffusion_model."): s for n, s in SD15.items() if n.startswith("model.")}
    assert set(canonical({prefix + name: shape for name, shape in plain.items()})) == {"unet"}


@pytest.mark.parametrize(
    ("prefix", "part"),
    [("cond_stage_model.model.", "text_encoder"), ("conditioner.embedders.1.model.", "text_encoder_2")],
)
def test_the_openclip_layout_is_read_as_diffusers_reads_it(prefix: str, part: str) -> None:
    layers, width = 3, 8
    state = {
        "token_embedding.weight": torch.randn(20, width),
        "positional_embedding": torch.randn(7, width),
        "ln_final.weight": torch.randn(width),
        "ln_final.bias": torch.randn(width),
        "text_projection": torch.randn(width, width),
    }
    for i in range(layers):
        block = f"transformer.resblocks.{i}"
        state |= {f"{block}.attn.in_proj_weight": torch.randn(3 * width, width)}
        state |= {f"{block}.attn.in_proj_bias": torch.randn(3 * width)}
        shapes = {"attn.out_proj": (width, width), "mlp.c_fc": (32, width), "mlp.c_proj": (width, 32)}
        for name, shape in shapes.items():
            state |= {f"{block}.{name}.weight": torch.randn(shape), f"{block}.{name}.bias": torch.randn(shape[0])}
        for name in ("ln_1", "ln_2"):
            state |= {f"{block}.{name}.weight": torch.randn(width), f"{block}.{name}.bias": torch.randn(width)}
    config = CLIPTextConfig(vocab_size=20, hidden_size=width, num_attention_heads=1, projection_dim=width)
    config.num_hidden_layers, config.max_position_embeddings, config.intermediate_size = layers, 7, 32
    with torch.device("meta"):
        model = CLIPTextModelWithProjection(config)
    file = {prefix + name: tensor for name, tensor in state.items()}
    expected = theirs.convert_open_clip_checkpoint(model, dict(file), prefix=prefix)
    expected = {name.removeprefix("text_model."): tensor for name, tensor in expected.items()}
    # diffusers leaves the projection of SD 2 out, as nothing uses it; we name it all the same.
    expected.setdefault("text_projection.weight", state["text_projection"].T)
    found = canonical({name: tuple(tensor.shape) for name, tensor in file.items()})[part]
    assert set(found) == set(expected)
    for name, source in found.items():
        assert torch.equal(cut(file[source.name], source), expected[name]), name


def test_old_names_of_a_vaes_attention_are_read(tmp_path: Path) -> None:
    start = "vae/decoder.mid_block.attentions.0."
    old = {f"{start}{name}.weight": (4, 4) for name in ("query", "key", "value", "proj_attn")}
    assert set(canonical(old)["vae"]) == {
        f"decoder.mid_block.attentions.0.{name}.weight" for name in ("to_q", "to_k", "to_v", "to_out.0")
    }


def test_numbers_that_no_network_has_cannot_make_work() -> None:
    huge = "9" * 12
    names = (
        f"model.diffusion_model.input_blocks.{huge}.0.op.weight",
        f"first_stage_model.encoder.down.{huge}.block.0.norm1.bias",
        f"cond_stage_model.model.transformer.resblocks.{huge}.ln_1.bias",
    )
    found = canonical(dict.fromkeys(names, (4,)))
    assert sum(map(len, found.values())) <= 3


def test_a_lora_has_no_parts() -> None:
    assert split_parts(["lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", "emb_params"]) == {}
