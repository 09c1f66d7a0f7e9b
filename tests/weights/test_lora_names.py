"""Every layout of keys names the same modules."""

from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from diffusers import UNet2DConditionModel
from lora_tools import MLP, TO_K, TO_OUT, Q, kohya, low_rank, merge_once, tiny_models, weight_of, write, write_kohya
from torch import Tensor, nn

from clipskip.errors import LoraError, WrongKind
from clipskip.spec import Family
from clipskip.weights.lora import load_lora, module_names, sd1_table
from clipskip.weights.lora.detect import lora_family
from clipskip.weights.lora.names import name_table, sd1_names, sdxl_names, sdxl_table


@pytest.fixture(scope="module")
def models() -> dict[str, nn.Module]:
    return tiny_models()


def test_the_built_in_names_are_those_of_transformers_and_diffusers(models: dict[str, nn.Module]) -> None:
    assert set(sd1_names()) == set(module_names(models))


def test_no_underscored_name_means_two_modules(models: dict[str, nn.Module]) -> None:
    assert not sd1_table().ambiguous
    assert not name_table(module_names(models)).ambiguous


def test_an_underscored_name_that_two_modules_share_resolves_to_nothing() -> None:
    table = name_table(["unet.a.b_c", "unet.a_b.c", "unet.d.e"])
    assert table.resolve("lora_unet_a_b_c") is None
    assert table.resolve("lora_unet_d_e") == "unet.d.e"


def test_kohyas_spelling_of_every_module_resolves(models: dict[str, nn.Module]) -> None:
    assert all(sd1_table().resolve(kohya(name)) == name for name in module_names(models))


LDM = {
    "unet.down_blocks.1.attentions.0.proj_in": "input_blocks_4_1_proj_in",
    "unet.down_blocks.0.downsamplers.0.conv": "input_blocks_3_0_op",
    "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0": (
        "middle_block_1_transformer_blocks_0_attn1_to_out_0"
    ),
    "unet.mid_block.resnets.1.conv2": "middle_block_2_out_layers_3",
    "unet.up_blocks.1.attentions.2.transformer_blocks.0.ff.net.0.proj": (
        "output_blocks_5_1_transformer_blocks_0_ff_net_0_proj"
    ),
    "unet.up_blocks.0.upsamplers.0.conv": "output_blocks_2_1_conv",
    "unet.up_blocks.1.upsamplers.0.conv": "output_blocks_5_2_conv",
    "unet.up_blocks.3.resnets.0.conv_shortcut": "output_blocks_9_0_skip_connection",
    "unet.time_embedding.linear_2": "time_embed_2",
    "unet.conv_in": "input_blocks_0_0",
    "unet.conv_out": "out_2",
}
"""By A1111's table in its Lora extension (networks.py, convert_diffusers_name_to_compvis)."""


@pytest.mark.parametrize(("name", "spelling"), LDM.items())
def test_ldm_names_resolve(name: str, spelling: str) -> None:
    assert sd1_table().resolve(f"lora_unet_{spelling}") == name


def peft_ends(parts: dict[str, Tensor], adapter: str = "") -> dict[str, Tensor]:
    return {
        f"lora_A{adapter}.weight": parts["lora_down.weight"],
        f"lora_B{adapter}.weight": parts["lora_up.weight"],
    }


def diffusers_ends(parts: dict[str, Tensor], start: str) -> dict[str, Tensor]:
    return {f"{start}.down.weight": parts["lora_down.weight"], f"{start}.up.weight": parts["lora_up.weight"]}


def dotted(
    head: Callable[[str], str], ends: Callable[[dict[str, Tensor]], dict[str, Tensor]], joint: str = "."
) -> object:
    """A layout: canonical name and kohya's parts in, the file's keys out."""
    return lambda name, parts: {f"{head(name)}{joint}{end}": value for end, value in ends(parts).items()}


def text_model(name: str) -> str:
    return name.replace("text_encoder.", "text_encoder.text_model.")


def first_diffusers(name: str) -> str:
    """diffusers 0.14 to 0.20: processors, and the text encoder's projections under the UNet's names."""
    name = text_model(name).replace(".q_proj", ".to_q").removesuffix(".0")
    return name.replace(".attn1.", ".attn1.processor.").replace(".attn2.", ".attn2.processor.")


def plain(parts: dict[str, Tensor]) -> dict[str, Tensor]:
    return parts


LAYOUTS = {
    "kohya": dotted(kohya, plain),
    "kohya, SDXL's first encoder": dotted(lambda n: kohya(n).replace("lora_te_", "lora_te1_"), plain),
    "kohya, flat encoder": dotted(lambda n: kohya(n).replace("lora_te_text_model_", "lora_te_"), plain),
    "kohya, to_out without its number": dotted(lambda n: kohya(n).replace("to_out_0", "to_out"), plain),
    "lycoris": dotted(lambda n: "lycoris_" + n.partition(".")[2].replace(".", "_"), plain),
    "diffusers": dotted(text_model, peft_ends),
    "diffusers, flat encoder": dotted(lambda n: n, peft_ends),
    "diffusers, .lora": dotted(text_model, lambda p: diffusers_ends(p, "lora")),
    "diffusers, .lora_linear_layer": dotted(text_model, lambda p: diffusers_ends(p, "lora_linear_layer")),
    "diffusers, processors": dotted(first_diffusers, lambda p: diffusers_ends(p, "_lora"), joint=""),
    "peft, default adapter": dotted(text_model, lambda p: peft_ends(p, ".default")),
    "peft, within the part": dotted(lambda n: n.replace(".", ".base_model.model.", 1), peft_ends),
    "peft, before the part": dotted(lambda n: f"base_model.model.{text_model(n)}", peft_ends),
    "peft, without the part": dotted(lambda n: f"base_model.model.{n.partition('.')[2]}", peft_ends),
}


def comfy(name: str) -> str:
    """ComfyUI's own state: CLIP within its wrapper, LDM's UNet."""
    part, _, local = name.partition(".")
    return (
        f"text_encoders.clip_l.transformer.text_model.{local}"
        if part == "text_encoder"
        else f"diffusion_model.{ldm(local)}"
    )


def onetrainer(name: str) -> str:
    part, _, local = name.partition(".")
    return f"clip_l.text_model.{local}" if part == "text_encoder" else f"unet.{ldm(local)}"


def ldm(local: str) -> str:
    known = {
        "down_blocks.0.attentions.0": "input_blocks.1.1",
        "mid_block.attentions.0": "middle_block.1",
    }
    return next(local.replace(ours, theirs) for ours, theirs in known.items() if local.startswith(ours))


def openclip(name: str) -> str:
    return name.replace("encoder.layers.0.self_attn", "transformer.resblocks.0.attn")


def onetrainer_dots(name: str) -> str:
    return name.replace("text_encoder.", "lora_te.text_model.").replace("unet.", "lora_unet.")


LAYOUTS |= {
    "ComfyUI": dotted(comfy, plain),
    "ComfyUI, without the wrapper": dotted(lambda n: comfy(n).replace("clip_l.transformer.", "clip_l."), plain),
    "ComfyUI, lora_A": dotted(comfy, lambda p: {"lora_A": p["lora_down.weight"], "lora_B": p["lora_up.weight"]}),
    "OneTrainer, OMI": dotted(onetrainer, plain),
    "OneTrainer, dotted": dotted(onetrainer_dots, plain),
    "SD 2.x of ComfyUI": dotted(lambda n: comfy(n).replace("clip_l", "clip_h"), plain),
    "SD 2.x, OpenCLIP's names": dotted(
        lambda n: (
            openclip(n).replace("text_encoder.", "lora_te_model_").replace("unet.", "lora_unet_").replace(".", "_")
        ),
        plain,
    ),
    "SD 2.x, single files' names": dotted(
        lambda n: openclip(n).replace("text_encoder.", "cond_stage_model.model."), plain
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", [Q, TO_K, TO_OUT])
def test_every_layout_changes_the_same_module_by_the_same_bits(
    layout: str, name: str, models: dict[str, nn.Module], tmp_path: Path
) -> None:
    parts = low_rank(weight_of(models, name), 4)
    expected = merge_once(models, write_kohya(tmp_path / "kohya.safetensors", {name: parts}), name)
    tensors = LAYOUTS[layout](name, parts)  # type: ignore[operator]
    family = Family.SD2 if layout.startswith("SD 2.x") else Family.SD1
    other = load_lora(write(tmp_path / "other.safetensors", tensors), family=family)
    assert torch.equal(merge_once(models, other, name), expected)


def test_oft_of_kohya_has_its_own_prefix() -> None:
    assert sd1_table().resolve("oft_unet_mid_block_attentions_0_proj_in") == "unet.mid_block.attentions.0.proj_in"


def test_keys_that_name_nothing_are_an_error_that_names_three_and_counts_them(tmp_path: Path) -> None:
    tensors = {f"lora_unet_nowhere_{i}.lora_up.weight": torch.ones(2, 2) for i in range(5)}
    good = {f"{kohya(Q)}.lora_up.weight": torch.ones(32, 2), f"{kohya(Q)}.lora_down.weight": torch.ones(2, 32)}
    file = write(tmp_path / "strange.safetensors", tensors | good)
    with pytest.raises(LoraError, match=r"5 of its 7 keys .*nowhere_0.*nowhere_2.* and 2 more"):
        load_lora(file)
    assert len(load_lora(file, family=None).unknown) == 5


def test_a_known_module_with_an_unknown_part_is_an_error(tmp_path: Path) -> None:
    file = write(tmp_path / "new.safetensors", {f"{kohya(Q)}.vera_lambda": torch.ones(4)})
    with pytest.raises(WrongKind, match="vera_lambda"):
        load_lora(file)


TRANSFORMER = "a model other than Stable Diffusion 1, 2 and SDXL (its keys are a transformer's)"


@pytest.mark.parametrize(
    ("key", "shape", "family"),
    [
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", (4, 1280), "SDXL"),
        ("lora_unet_output_blocks_0_1_transformer_blocks_9_attn1_to_q.lora_down.weight", (4, 1280), "SDXL"),
        ("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", (4, 3072), "Flux"),
        ("lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight", (4, 1024), "SD 2.x"),
        ("unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight", (4, 768), "SD 1.x"),
        (f"{kohya(MLP)}.lora_down.weight", (4, 768), None),
        ("text_encoders.clip_g.transformer.text_model.encoder.layers.0.mlp.fc1.lora_up.weight", (4, 4), "SDXL"),
        ("clip_h.text_model.encoder.layers.0.mlp.fc1.lora_up.weight", (4, 4), "SD 2.x"),
        ("lora_unet_joint_blocks_0_x_block_attn_qkv.lora_down.weight", (4, 1536), "SD 3"),
        ("transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight", (4, 3072), "Flux"),
        ("diffusion_model.transformer_blocks.1.attn.add_k_proj.lora_A.weight", (4, 3072), TRANSFORMER),  # Qwen-Image
        ("lora_unet_transformer_blocks_12_attn_to_q.lora_down.weight", (4, 3072), TRANSFORMER),  # the same by musubi
        ("lycoris_transformer_blocks_1_attn_to_q.lokr_w1", (4, 4), TRANSFORMER),  # SimpleTuner
        ("diffusion_model.transformer_blocks.1.attn2.to_k.lora_A.weight", (4, 2048), TRANSFORMER),  # LTX-Video
        ("unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.hada_w1_b", (4, 2048), "SDXL"),
        ("unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.diff", (1280, 768), "SD 1.x"),
        ("lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight", (4, 1024), "SD 2.x"),
        ("lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight", (4, 768), "SDXL"),
    ],
)
def test_the_family_is_seen_in_keys_and_shapes(key: str, shape: tuple[int, ...], family: str | None) -> None:
    assert (lora_family({key: shape}, {}).label or None) == family


def test_a_lora_for_another_family_is_named(tmp_path: Path) -> None:
    keys = ("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", "lora_unet_double_blocks_0_img_mlp_0.alpha")
    file = write(tmp_path / "flux.safetensors", {key: torch.ones(2, 2) for key in keys})
    with pytest.raises(LoraError, match="for Flux"):
        load_lora(file)


def test_bundled_embeddings_come_with_the_lora(models: dict[str, nn.Module], tmp_path: Path) -> None:
    vectors = torch.arange(64.0).reshape(2, 32)
    tensors = {"bundle_emb.swamp.v2.string_to_param.*": vectors, "bundle_emb.reed.emb_params": vectors[:1]}
    tensors |= {"bundle_emb.moss.clip_l": vectors}  # OneTrainer since 2025, for SD 1.x and SD 2.x
    found = load_lora(write(tmp_path / "bundle.safetensors", tensors)).embeddings
    assert set(found) == {"swamp.v2", "reed", "moss"}
    assert torch.equal(found["swamp.v2"][0], vectors)
    assert len(found["moss"]) == 1
    assert torch.equal(found["moss"][0], vectors)


def test_a_bundled_embedding_of_sdxl_has_a_side_for_each_encoder(tmp_path: Path) -> None:
    sides = {"clip_l": torch.ones(2, 32), "clip_g": torch.ones(2, 40)}
    tensors = {f"bundle_emb.swamp.v2.{side}": vectors for side, vectors in sides.items()}
    found = load_lora(write(tmp_path / "bundle.safetensors", tensors), family=Family.SDXL).embeddings
    assert [tuple(side.shape) for side in found["swamp.v2"]] == [(2, 32), (2, 40)]
    with pytest.raises(LoraError, match=r"clip_g.*do not belong together"):
        load_lora(
            write(tmp_path / "half.safetensors", {"bundle_emb.swamp.clip_g": torch.ones(1, 40)}), family=Family.SDXL
        )
    tensors["bundle_emb.swamp.v2.clip_g"] = torch.ones(3, 40)
    with pytest.raises(LoraError, match="2 vectors for CLIP-L and 3 for OpenCLIP bigG"):
        load_lora(write(tmp_path / "uneven.safetensors", tensors), family=Family.SDXL)


def test_a_float_of_any_width_is_read(models: dict[str, nn.Module], tmp_path: Path) -> None:
    parts = {key: value.half().float() for key, value in low_rank(weight_of(models, TO_K), 4).items()}
    expected = merge_once(models, write_kohya(tmp_path / "full.safetensors", {TO_K: parts}), TO_K)
    half = write_kohya(tmp_path / "half.safetensors", {TO_K: {key: value.half() for key, value in parts.items()}})
    assert safetensors.torch.load_file(half)[f"{kohya(TO_K)}.lora_up.weight"].dtype == torch.float16
    assert torch.equal(merge_once(models, half, TO_K), expected)


def test_sdxls_names_are_those_of_transformers_and_diffusers() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),
            cross_attention_dim=2048,
            attention_head_dim=(5, 10, 20),
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        )
    ours = {name for name in sdxl_names() if name.startswith("unet.")}
    assert ours == set(module_names({"unet": unet}))
    texts = [name for name in sdxl_names() if name.startswith("text_encoder")]
    assert sum(".self_attn.q_proj" in name for name in texts) == 12 + 32


@pytest.mark.parametrize(
    ("head", "name"),
    [
        ("lora_te1_text_model_encoder_layers_11_mlp_fc1", "text_encoder.encoder.layers.11.mlp.fc1"),
        ("lora_te2_text_model_encoder_layers_31_mlp_fc2", "text_encoder_2.encoder.layers.31.mlp.fc2"),
        (
            "text_encoder_2.text_model.encoder.layers.3.self_attn.q_proj",
            "text_encoder_2.encoder.layers.3.self_attn.q_proj",
        ),
        ("text_encoders.clip_g.transformer.text_model.final_layer_norm", "text_encoder_2.final_layer_norm"),
        ("clip_g.text_projection", "text_encoder_2.text_projection"),
        (
            "lora_unet_input_blocks_8_1_transformer_blocks_9_attn2_to_k",
            "unet.down_blocks.2.attentions.1.transformer_blocks.9.attn2.to_k",
        ),
        ("diffusion_model.output_blocks.5.2.conv", "unet.up_blocks.1.upsamplers.0.conv"),
        ("unet.label_emb.0.0", "unet.add_embedding.linear_1"),
        ("lora_unet_add_embedding_linear_2", "unet.add_embedding.linear_2"),
    ],
)
def test_every_layouts_names_of_sdxl_resolve(head: str, name: str) -> None:
    assert sdxl_table().resolve(head) == name
    assert not sdxl_table().ambiguous
