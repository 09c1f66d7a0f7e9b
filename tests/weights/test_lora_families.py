"""Every layout in which LoRAs for SDXL and SD 2.x are written, and files of diffusers' and LyCORIS' own writers."""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path

import peft
import pytest
import tiny_sdxl
import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from lora_tools import family_models, kohya, low_rank, merge_once, module_of, relative, weight_of, write
from lycoris import create_lycoris
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from clipskip.errors import LoraError
from clipskip.spec import Family
from clipskip.weights.lora import load_lora, merged, module_names
from clipskip.weights.lora.names import table_for

Spelling = Callable[[str], str]

L1 = "text_encoder.encoder.layers.11.self_attn.out_proj"
G1 = "text_encoder_2.encoder.layers.31.self_attn.q_proj"
G2 = "text_encoder_2.encoder.layers.5.mlp.fc2"
GP = "text_encoder_2.text_projection"
TO_K = "unet.down_blocks.1.attentions.1.transformer_blocks.1.attn2.to_k"
TO_OUT = "unet.mid_block.attentions.0.transformer_blocks.2.attn1.to_out.0"
UP = "unet.up_blocks.1.attentions.2.proj_out"
ADDED = "unet.add_embedding.linear_2"
MODULES = (L1, G1, G2, GP, TO_K, TO_OUT, UP, ADDED)
LDM = {
    TO_K: "input_blocks.5.1.transformer_blocks.1.attn2.to_k",
    TO_OUT: "middle_block.1.transformer_blocks.2.attn1.to_out.0",
    UP: "output_blocks.5.1.proj_out",
    ADDED: "label_emb.0.2",
}
"""By the reference's configuration (sgm, openaimodel.py): two ResNets a level, attention from the second level on."""
OPENCLIP = {
    G1: "transformer.resblocks.31.attn.q_proj",
    G2: "transformer.resblocks.5.mlp.c_proj",
    GP: "text_projection",
}


def local(name: str) -> str:
    return name.partition(".")[2]


def ldm(name: str) -> str:
    return LDM.get(name, local(name))


def within(prefixes: Mapping[str, str], unet: Callable[[str], str]) -> Spelling:
    """Spellings of prefix and name; Hugging Face's wrapper around the layers, and none around the projection."""

    def spell(name: str) -> str:
        part = name.partition(".")[0]
        if part == "unet":
            return prefixes[part] + unet(name)
        return prefixes[part] + ("" if name == GP else "text_model.") + local(name)

    return spell


def joined(spelling: Spelling, *starts: str) -> Spelling:
    """The same with underscores after its start."""

    def spell(name: str) -> str:
        spelled = spelling(name)
        start = next(start for start in starts if spelled.startswith(start))
        return start + spelled.removeprefix(start).replace(".", "_")

    return spell


NUMBERED = {"text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_", "unet": "lora_unet_"}
DOTTED = {part: f"{start[:-1]}." for part, start in NUMBERED.items()}
COMFY = {
    "text_encoder": "text_encoders.clip_l.transformer.",
    "text_encoder_2": "text_encoders.clip_g.transformer.",
    "unet": "diffusion_model.",
}
OMI = {"text_encoder": "clip_l.", "text_encoder_2": "clip_g.", "unet": "unet."}
LYCORIS = {
    "text_encoder": "lycoris_text_encoder_",
    "text_encoder_2": "lycoris_text_encoder_2_",
    "unet": "lycoris_unet_",
}
FILE = {
    "text_encoder": "conditioner.embedders.0.transformer.",
    "text_encoder_2": "conditioner.embedders.1.model.",
    "unet": "model.diffusion_model.",
}


def single_file(name: str) -> str:
    return FILE["text_encoder_2"] + OPENCLIP[name] if name in OPENCLIP else within(FILE, ldm)(name)


LAYOUTS: Mapping[str, Spelling] = {
    "kohya, LDM's blocks": joined(within(NUMBERED, ldm), *NUMBERED.values()),
    "kohya, diffusers' blocks": joined(within(NUMBERED, local), *NUMBERED.values()),
    "OneTrainer, dotted": within(DOTTED, local),
    "OneTrainer, OMI": within(OMI, ldm),
    "ComfyUI": within(COMFY, ldm),
    "ComfyUI, without the wrapper": lambda name: within(COMFY, ldm)(name).replace(".transformer.", "."),
    "diffusers": lambda name: name,
    "diffusers, wrapped": lambda name: name.replace(".encoder.", ".text_model.encoder.", 1),
    "peft": lambda name: f"base_model.model.{name}",
    "LyCORIS": joined(within(LYCORIS, local), LYCORIS["text_encoder_2"], *LYCORIS.values()),
    "single files": single_file,
}
ENDS: Mapping[str, tuple[str, str]] = {
    "kohya": ("lora_down.weight", "lora_up.weight"),
    "peft": ("lora_A.weight", "lora_B.weight"),
}


@pytest.fixture(scope="module")
def models() -> dict[str, nn.Module]:
    return family_models(Family.SDXL)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("ends", ENDS.values(), ids=ENDS)
def test_every_layout_of_sdxl_changes_the_same_modules_by_the_same_bits(
    layout: str, ends: tuple[str, str], models: dict[str, nn.Module], tmp_path: Path
) -> None:
    """One file with every module, so that no spelling means another one."""
    tensors: dict[str, Tensor] = {}
    for at, name in enumerate(MODULES):
        parts = low_rank(weight_of(models, name), 2 + at % 3, seed=at)
        down, up = parts["lora_down.weight"], parts["lora_up.weight"]
        tensors |= {f"{LAYOUTS[layout](name)}.{ends[0]}": down, f"{LAYOUTS[layout](name)}.{ends[1]}": up}
        tensors[f"{LAYOUTS[layout](name)}.alpha"] = torch.tensor(1.0 + at)
    lora = load_lora(write(tmp_path / "all.safetensors", tensors), family=Family.SDXL)
    base = {name: weight_of(models, name) for name in MODULES}
    with merged(models, [(lora, 0.5, 2.0)]):
        for at, name in enumerate(MODULES):
            parts = low_rank(base[name], 2 + at % 3, seed=at)
            scale = (1.0 + at) / (2 + at % 3) * (2.0 if name.startswith("unet") else 0.5)
            change = scale * (parts["lora_up.weight"].double() @ parts["lora_down.weight"].double())
            assert relative(weight_of(models, name), base[name] + change, base[name]) < 1e-6  # float32 rounding


def test_every_name_of_sdxl_and_sd2_resolves_as_kohya_spells_it() -> None:
    for family in (Family.SDXL, Family.SD2):
        names = [name for name in module_names(family_models(family)) if "embeddings" not in name]
        table = table_for(family, tiny_sdxl.UNET if family is Family.SDXL else tiny_sdxl.SD2_UNET)
        assert [table.resolve(kohya(name, family)) for name in names] == names


JOINT = {Family.SDXL: "conditioner.embedders.1.model", Family.SD2: "cond_stage_model.model"}
THIRDS = [f"encoder.layers.3.self_attn.{letter}_proj" for letter in "qkv"]


def joint_models(family: Family) -> tuple[dict[str, nn.Module], list[str], nn.MultiheadAttention]:
    """A family's networks, the three modules of a layer, and OpenCLIP's one module with the same weights."""
    models = family_models(family)
    part = "text_encoder_2" if family is Family.SDXL else "text_encoder"
    names = [f"{part}.{third}" for third in THIRDS]
    ours = [module_of(models, name) for name in (*names, f"{part}.encoder.layers.3.self_attn.out_proj")]
    width = ours[0].weight.shape[1]
    theirs = nn.MultiheadAttention(width, 2, batch_first=True)
    theirs.in_proj_weight = nn.Parameter(torch.cat([module.weight for module in ours[:3]]))
    theirs.out_proj.weight = nn.Parameter(ours[3].weight.clone())
    return models, [*names, f"{part}.encoder.layers.3.self_attn.out_proj"], theirs


@pytest.mark.parametrize("family", JOINT, ids=lambda family: family.label)
def test_what_peft_makes_of_openclips_joint_matrix_is_merged_as_peft_merges_it(family: Family, tmp_path: Path) -> None:
    models, names, theirs = joint_models(family)
    torch.manual_seed(8)
    wrapped = peft.get_peft_model(
        nn.ModuleDict({"attn": theirs}),
        peft.LoraConfig(r=4, lora_alpha=2, target_modules=["attn"], init_lora_weights=False),
    )
    head = f"{JOINT[family]}.transformer.resblocks.3."
    state = {key.removeprefix("base_model.model."): v for key, v in peft.get_peft_model_state_dict(wrapped).items()}
    tensors = {f"{head}{key}": value.detach() for key, value in state.items()}
    tensors |= {key.replace("lora_A.weight", "alpha"): torch.tensor(2.0) for key in tensors if "lora_A" in key}
    lora = load_lora(write(tmp_path / "joint.safetensors", tensors), family=family)
    assert list(lora.modules) == names
    out = wrapped.base_model.model["attn"].base_layer.out_proj
    added = out.get_delta_weight("default").detach()  # peft 0.21.2 itself adds this twice, in its forward pass too
    expected = [out.weight.detach() + added]
    expected = [*wrapped.merge_and_unload()["attn"].in_proj_weight.detach().chunk(3), *expected]
    base = [weight_of(models, name) for name in names]
    with merged(models, [(lora, 1.0, 1.0)]):
        for name, before, reference in zip(names, base, expected, strict=True):
            assert relative(weight_of(models, name), reference, before) < 1e-6  # float32 rounding


@pytest.mark.parametrize("kind", ["full", "LoHa", "DoRA", "LoCon"])
@pytest.mark.parametrize("end", ["attn.in_proj", "attn.in_proj_weight", "attn"])
def test_every_divisible_change_of_the_joint_matrix_is_that_of_the_whole(kind: str, end: str, tmp_path: Path) -> None:
    models, (*names, _), theirs = joint_models(Family.SDXL)
    torch.manual_seed(9)
    weight = theirs.in_proj_weight.detach().double()
    rows, columns = weight.shape
    up, down = torch.randn(rows, 4) * 0.3, torch.randn(4, columns) * 0.3
    product = 0.5 * up.double() @ down.double()
    plain = {"lora_up.weight": up, "lora_down.weight": down, "alpha": torch.tensor(2.0)}
    magnitude, other = torch.rand(rows, 1) + 0.5, torch.randn(rows, 4)
    whole = weight + product
    made: dict[str, tuple[dict[str, Tensor], Tensor]] = {
        "LoCon": (plain, whole),
        "full": ({"diff": product.float()}, whole),
        "LoHa": (
            {"hada_w1_a": up, "hada_w1_b": down, "hada_w2_a": other, "hada_w2_b": down, "alpha": torch.tensor(4.0)},
            weight + (up.double() @ down.double()) * (other.double() @ down.double()),
        ),
        "DoRA": (plain | {"dora_scale": magnitude}, whole * (magnitude / whole.norm(dim=1, keepdim=True))),
    }
    parts, expected = made[kind]
    head = f"{JOINT[Family.SDXL]}.transformer.resblocks.3.{end}"
    file = write(tmp_path / "joint.safetensors", {f"{head}.{part}": value for part, value in parts.items()})
    base = [weight_of(models, name) for name in names]
    with merged(models, [(load_lora(file, family=Family.SDXL), 1.0, 1.0)]):
        for name, before, reference in zip(names, base, expected.chunk(3), strict=True):
            assert relative(weight_of(models, name), reference, before) < 1e-6  # float32 rounding


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"lokr_w1": (3, 2), "lokr_w2": (40, 20)}, "its lokr_w1 cannot be divided"),
        ({"lora_up.weight": (4, 2), "lora_down.weight": (2, 40)}, "its up cannot be divided"),
    ],
)
def test_what_cannot_be_divided_among_queries_keys_and_values_is_refused_by_name(
    parts: dict[str, tuple[int, ...]], said: str, tmp_path: Path
) -> None:
    key = "lora_te2_model_transformer_resblocks_0_attn_in_proj"
    file = write(tmp_path / "joint.safetensors", {f"{key}.{part}": torch.ones(size) for part, size in parts.items()})
    with pytest.raises(LoraError, match=f"attn_in_proj.*{said}"):
        load_lora(file, family=Family.SDXL)


def test_a_joint_change_beside_one_of_its_thirds_is_the_same_weights_twice(tmp_path: Path) -> None:
    head = "lora_te2_model_transformer_resblocks_0_attn_"
    tensors = {f"{head}{name}.diff": torch.ones(rows, 40) for name, rows in {"in_proj": 120, "k_proj": 40}.items()}
    with pytest.raises(LoraError, match=r"names the same weights twice: in .*in_proj"):
        load_lora(write(tmp_path / "twice.safetensors", tensors), family=Family.SDXL)


@pytest.mark.parametrize(
    ("family", "encoder"),
    [(Family.SD1, "clip_l"), (Family.SDXL, "clip_l"), (Family.SD2, "clip_h")],
    ids=lambda value: str(value),
)
def test_a_projection_that_no_picture_is_made_with_is_told_and_changes_nothing(
    family: Family, encoder: str, tmp_path: Path
) -> None:
    """ComfyUI has one in every encoder, and "Extract and Save" writes it with the rest."""
    head = f"text_encoders.{encoder}.transformer."
    parts = {"lora_up.weight": torch.ones(32, 2), "lora_down.weight": torch.ones(2, 32)}
    tensors = {f"{head}text_projection.{end}": value for end, value in parts.items()}
    tensors |= {f"{head}text_model.encoder.layers.0.self_attn.q_proj.{end}": value for end, value in parts.items()}
    lora = load_lora(write(tmp_path / "comfy.safetensors", tensors), family=family)
    assert list(lora.modules) == ["text_encoder.encoder.layers.0.self_attn.q_proj"]
    assert any("text_projection" in line and "no effect" in line for line in lora.warnings)


def hugging_face() -> dict[str, nn.Module]:
    """The tiny SDXL's networks as transformers and diffusers have them."""
    parts = tiny_sdxl.sdxl()
    ends = {"bos_token_id": 49406, "eos_token_id": 49407}
    text = CLIPTextModel(CLIPTextConfig(**tiny_sdxl.L.config(), **ends))
    text_2 = CLIPTextModelWithProjection(CLIPTextConfig(**tiny_sdxl.G.config(), **ends))
    unet = UNet2DConditionModel(**tiny_sdxl.UNET.config())
    text.load_state_dict(parts.states["text_encoder"])
    named = parts.states["text_encoder_2"].items()
    text_2.load_state_dict({n if n.startswith("text_projection") else f"text_model.{n}": t for n, t in named})
    unet.load_state_dict(parts.states["unet"])
    return {"text_encoder": text, "text_encoder_2": text_2, "unet": unet}


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft asks transformers
def test_what_diffusers_writes_of_peft_adapters_is_merged_as_peft_merges_it(
    models: dict[str, nn.Module], tmp_path: Path
) -> None:
    torch.manual_seed(5)
    targets = {
        "text_encoder": ["q_proj", "fc1"],
        "text_encoder_2": ["v_proj", "fc2"],
        "unet": ["to_k", "ff.net.2", "conv1"],
    }
    layers, whole = {}, {}
    for part, network in hugging_face().items():
        config = peft.LoraConfig(r=4, lora_alpha=4, target_modules=targets[part], init_lora_weights=False)
        adapted = peft.get_peft_model(copy.deepcopy(network), config)
        layers[f"{part}_lora_layers"] = {
            name.removeprefix("base_model.model."): value
            for name, value in peft.get_peft_model_state_dict(adapted).items()
        }
        whole[part] = adapted.merge_and_unload()
    StableDiffusionXLPipeline.save_lora_weights(tmp_path, **layers)
    file = tmp_path / "pytorch_lora_weights.safetensors"
    lora = load_lora(file, family=Family.SDXL)
    assert 2 * len(lora.modules) == len(load_file(file))
    base = {name: weight_of(models, name) for name in lora.modules}
    with merged(models, [(lora, 1.0, 1.0)]):
        for name in lora.modules:
            part, _, inner = name.partition(".")
            wrapped = f"text_model.{inner}" if part == "text_encoder_2" else inner
            reference = whole[part].get_submodule(wrapped).weight.detach()
            assert relative(weight_of(models, name), reference, base[name]) < 1e-6  # float32 rounding


def test_what_lycoris_writes_of_an_sdxl_unet_is_merged_as_lycoris_merges_it(
    models: dict[str, nn.Module], tmp_path: Path
) -> None:
    torch.manual_seed(6)
    theirs = hugging_face()["unet"]
    network = create_lycoris(theirs, 1.0, linear_dim=4, linear_alpha=2, algo="lora")
    network.apply_to()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    tensors = {name: value.detach() for name, value in network.state_dict().items()}
    network.restore()
    network.merge_to(1.0)
    lora = load_lora(write(tmp_path / "lycoris.safetensors", tensors), family=Family.SDXL)
    base = {name: weight_of(models, name) for name in lora.modules}
    assert len(lora.modules) > 100
    with merged(models, [(lora, 1.0, 1.0)]):
        for name in lora.modules:
            reference = module_of({"unet": theirs}, name).weight.detach()
            assert relative(weight_of(models, name), reference, base[name]) < 2e-6  # two roundings to float32


def test_sd2s_layers_reach_24(tmp_path: Path) -> None:
    models = family_models(Family.SD2)
    name = "text_encoder.encoder.layers.23.self_attn.v_proj"
    base, parts = weight_of(models, name), low_rank(weight_of(models, name), 3)
    file = write(tmp_path / "sd2.safetensors", {f"{kohya(name)}.{end}": value for end, value in parts.items()})
    change = parts["lora_up.weight"].double() @ parts["lora_down.weight"].double()
    assert relative(merge_once(models, load_lora(file, family=Family.SD2), name), base + change, base) < 1e-6
