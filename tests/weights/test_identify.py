"""Kind, family, layers and what is missing are told from the header alone, and what cannot draw from text is refused."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_sd1 import single_file, tiny_checkpoint

from clipskip.errors import DamagedFile, UnsafeFile, WrongKind
from clipskip.spec.family import Family
from clipskip.weights.container import Header, TensorInfo
from clipskip.weights.header import read_header
from clipskip.weights.identify import EncoderSummary, FileKind, check_loadable, identify
from clipskip.weights.save import save_folder

GOLDEN = Path(__file__).parents[1] / "golden" / "sd15-single-file.json"
SD15 = {name: tuple(shape) for name, shape in json.loads(GOLDEN.read_text())["tensors"].items()}
TEXT, UNET = "cond_stage_model.transformer.text_model.", "model.diffusion_model."


def header(shapes: dict[str, tuple[int, ...]], **metadata: str) -> Header:
    """A header as of a file with these tensors."""
    path = Path("file.safetensors")
    tensors = {name: TensorInfo(dtype="F16", shape=shape, file=path) for name, shape in shapes.items()}
    return Header(path=path, size=2, tensors=tensors, metadata=metadata)


def only(*starts: str) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in SD15.items() if name.startswith(starts)}


def openclip(prefix: str, layers: int, width: int) -> dict[str, tuple[int, ...]]:
    blocks = {f"{prefix}transformer.resblocks.{i}.ln_1.bias": (width,) for i in range(layers)}
    return blocks | {f"{prefix}token_embedding.weight": (49408, width), f"{prefix}ln_final.weight": (width,)}


SD2 = only(UNET) | openclip("cond_stage_model.model.", 24, 1024)
SD2 |= {name: (shape[0], 1024) for name, shape in SD2.items() if name.endswith("attn2.to_k.weight")}
SDXL = {name.replace("cond_stage_model", "conditioner.embedders.0"): shape for name, shape in SD15.items()}
SDXL |= openclip("conditioner.embedders.1.model.", 32, 1280) | {f"{UNET}label_emb.0.0.weight": (1280, 2816)}
NARROW = only(UNET, "first_stage_model.")
NARROW |= {name: (shape[0], 128) for name, shape in NARROW.items() if name.endswith("attn2.to_k.weight")}
REFINER = (
    only(UNET) | openclip("conditioner.embedders.0.model.", 32, 1280) | {f"{UNET}label_emb.0.0.weight": (1536, 2560)}
)
REFINER |= {name: (shape[0], 1280) for name, shape in REFINER.items() if name.endswith("attn2.to_k.weight")}
SD3 = {f"{UNET}joint_blocks.0.x_block.attn.qkv.weight": (4, 4), "text_encoders.t5xxl.transformer.shared.weight": (4, 4)}
FLUX = {f"{UNET}double_blocks.0.img_attn.norm.key_norm.scale": (128,)}
LORA = {"lora_te_text_model_encoder_layers_11_self_attn_q_proj.lora_down.weight": (4, 768)}
XL_LORA = {"lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (4, 1280)}
PEFT = {"base_model.model.unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight": (4, 1024)}


def test_an_sd15_file_is_known_whole() -> None:
    found = identify(header(SD15))
    assert (found.kind, found.family, found.missing) == (FileKind.CHECKPOINT, Family.SD1, ())
    assert found.encoders == (EncoderSummary(name="text encoder", layers=12, width=768),)
    assert [part.name for part in found.parts] == ["text encoder", "UNet", "VAE"]
    assert sum(part.parameters for part in found.parts) == 1_066_235_307
    check_loadable(found)


@pytest.mark.parametrize(
    ("shapes", "kind", "family"),
    [
        (SD2, FileKind.CHECKPOINT, Family.SD2),
        (SDXL, FileKind.CHECKPOINT, Family.SDXL),
        (REFINER, FileKind.CHECKPOINT, Family.SDXL),
        (SD3, FileKind.CHECKPOINT, Family.SD3),
        (FLUX, FileKind.CHECKPOINT, Family.FLUX),
        (only(UNET), FileKind.UNET, Family.SD1),
        ({name.removeprefix(UNET): shape for name, shape in only(UNET).items()}, FileKind.UNET, Family.SD1),
        (only("first_stage_model."), FileKind.VAE, None),
        ({n.removeprefix("first_stage_model."): s for n, s in only("first_stage_model.").items()}, FileKind.VAE, None),
        (only(TEXT), FileKind.TEXT_ENCODER, Family.SD1),
        (LORA, FileKind.LORA, Family.SD1),
        (XL_LORA, FileKind.LORA, Family.SDXL),
        (PEFT, FileKind.LORA, Family.SD2),
        ({"lora_unet_double_blocks_0_img_attn_proj.lora_down.weight": (4, 4)}, FileKind.LORA, Family.FLUX),
        ({"lora_unet_mid_block.hada_w1_a": (4, 4)}, FileKind.LORA, None),
        ({"emb_params": (3, 768)}, FileKind.EMBEDDING, None),
        ({"<swamp>": (768,)}, FileKind.EMBEDDING, None),
        ({"clip_l": (3, 768), "clip_g": (3, 1280)}, FileKind.EMBEDDING, None),
        ({"control_model.input_blocks.0.0.weight": (320, 4, 3, 3)}, FileKind.UNKNOWN, None),
        ({"a": (1,), "b": (2,)}, FileKind.UNKNOWN, None),
        ({}, FileKind.UNKNOWN, None),
    ],
)
def test_kind_and_family(shapes: dict[str, tuple[int, ...]], kind: FileKind, family: Family | None) -> None:
    found = identify(header(shapes))
    assert found.kind is kind
    if kind is not FileKind.EMBEDDING:
        assert found.family is family
    drawn = kind is FileKind.CHECKPOINT and family in (Family.SD1, Family.SD2, Family.SDXL) and not found.variant
    if not drawn:
        with pytest.raises(WrongKind) as caught:
            check_loadable(found)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (LORA, "is a LoRA, not a model; give it with --lora"),
        ({"emb_params": (3, 768)}, "is an embedding"),
        (only(UNET), "contains only a UNet"),
        (only("first_stage_model."), "contains only a VAE"),
        (NARROW, "contains a UNet and a VAE but no text encoder"),
        (only(TEXT), "contains only a text encoder"),
        (REFINER, "is SDXL's refiner, which finishes pictures that a base model began"),
        (SDXL | {"edm_mean": (1, 4, 1, 1), "edm_std": (1, 4, 1, 1)}, "is Playground v2.5"),
        (SDXL | {"edm_vpred.sigma_max": (1,), "edm_vpred.sigma_min": (1,)}, "is a CosXL checkpoint"),
        ({**SDXL, f"{UNET}input_blocks.0.0.weight": (320, 9, 3, 3)}, "an inpainting checkpoint"),
        (FLUX, "Clip Skip means nothing here"),
        (SD3, "Clip Skip means nothing here"),
        ({"control_model.input_blocks.0.0.weight": (320, 4, 3, 3)}, "looks like a ControlNet"),
        ({**SD15, f"{UNET}input_blocks.0.0.weight": (320, 9, 3, 3)}, "an inpainting checkpoint"),
        ({**SD15, f"{UNET}input_blocks.0.0.weight": (320, 8, 3, 3)}, "an instruct-pix2pix checkpoint"),
    ],
)
def test_a_wrong_kind_says_what_it_is_and_what_to_do(shapes: dict[str, tuple[int, ...]], words: str) -> None:
    with pytest.raises(WrongKind) as caught:
        check_loadable(identify(header(shapes)))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("metadata", "family"),
    [
        ({"ss_base_model_version": "sdxl_base_v1-0"}, Family.SDXL),
        ({"ss_base_model_version": "sd_v2_v"}, Family.SD2),
        ({"ss_base_model_version": "flux1"}, Family.FLUX),
        ({"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, Family.SDXL),
        ({"modelspec.architecture": "stable-diffusion-v1/lora"}, Family.SD1),
    ],
)
def test_a_loras_metadata_tells_its_family(metadata: dict[str, str], family: Family) -> None:
    assert identify(header(LORA, **metadata)).family is family


@pytest.mark.parametrize(
    ("metadata", "skip"),
    [
        ({"ss_clip_skip": "2"}, 2),
        ({"ss_clip_skip": "None"}, None),
        ({"modelspec.encoder_layer": "3"}, 3),
        ({"ss_clip_skip": "-2"}, None),
        ({"ss_clip_skip": "9" * 50}, None),
        ({}, None),
    ],
)
def test_what_it_was_trained_at(metadata: dict[str, str], skip: int | None) -> None:
    assert identify(header(LORA, **metadata)).trained_clip_skip == skip
    assert identify(header(XL_LORA, **metadata)).trained_clip_skip == 2  # SDXL's trainers have no choice


def test_missing_layers_and_parts_are_listed() -> None:
    without = {name: shape for name, shape in SD15.items() if "layers.11." not in name and "first_stage" not in name}
    found = identify(header(without))
    assert found.encoders[0].missing_layers == (11,)
    assert found.missing == ("text encoder layer 11 (counted from 0)", "the VAE")


def test_ema_v_prediction_and_terminal_snr_are_seen() -> None:
    extra = {f"model_ema.diffusion_modelinput_blocks{i}": (1,) for i in range(9)}
    found = identify(header(SD15 | extra | {"v_pred": (1,), "ztsnr": (1,)}))
    assert found.has_ema and found.prediction == "v" and found.zero_terminal_snr


@pytest.mark.parametrize(
    ("name", "prediction"),
    [
        ("fluffyrock-e140-terminal-snr-v_pred", "v"),
        ("noob VPred", "v"),
        ("model-v-prediction.fp16", "v"),
        ("vpredator", ""),
        ("previous-pred", ""),
        ("anything-v4.0-pruned", ""),
    ],
)
def test_a_name_with_v_pred_in_it_tells_the_prediction(tmp_path: Path, name: str, prediction: str) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    found = identify(read_header(tmp_path / f"{name}.safetensors"))
    assert (found.prediction, found.prediction_source) == (prediction, "its name" if prediction else "")


def test_what_the_metadata_says_goes_before_the_name(tmp_path: Path) -> None:
    for key in ("modelspec.prediction_type", "prediction_type"):
        save_file({"a": torch.zeros(1)}, tmp_path / "not-vpred.safetensors", metadata={key: "epsilon"})
        assert identify(read_header(tmp_path / "not-vpred.safetensors")).prediction == "epsilon"


@pytest.mark.parametrize(("spread", "prediction"), [(0.15, "v"), (0.05, "epsilon")])
def test_sd_2s_prediction_is_told_by_the_spread_of_a_norms_biases(
    tmp_path: Path, spread: float, prediction: str
) -> None:
    """SD 2.1's 768-pixel model predicts v and says so nowhere (ComfyUI's test: population deviation above 0.09)."""
    d = "model.diffusion_model"
    biases = spread * torch.tensor([1.0, -1.0]).repeat(160)
    tensors = {f"{d}.output_blocks.11.1.transformer_blocks.0.norm1.bias": biases.half()}
    tensors |= {f"{d}.input_blocks.{i}.0.op.weight": torch.zeros(1) for i in (3, 6, 9)}
    tensors |= {f"{d}.input_blocks.{i}.1.proj_in.weight": torch.zeros(1) for i in (1, 4, 7)}
    tensors |= {f"{d}.input_blocks.11.0.in_layers.0.weight": torch.zeros(1)}
    tensors |= {f"{d}.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": torch.zeros(320, 1024)}
    tensors |= {f"cond_stage_model.model.transformer.resblocks.{i}.ln_1.weight": torch.zeros(1) for i in range(24)}
    save_file(tensors, tmp_path / "v2.safetensors")
    found = identify(read_header(tmp_path / "v2.safetensors"))
    assert found.family is Family.SD2
    assert found.prediction == prediction and "biases" in found.prediction_source


@pytest.mark.parametrize(
    ("said", "prediction"), [('parameterization: "v"', "v"), ("parameterization: eps", "epsilon"), ("", "")]
)
def test_the_yaml_beside_a_file_tells_the_prediction(tmp_path: Path, said: str, prediction: str) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "model.yaml").write_text(f"model:\n  params:\n    {said}\n")
    assert identify(read_header(tmp_path / "model.safetensors")).prediction == prediction


def test_an_identity_goes_to_json() -> None:
    found = json.loads(json.dumps(identify(header(SD15, ss_clip_skip="2")).plain()))
    assert (found["trained_clip_skip"], found["family"], found["kind"]) == (2, "SD 1.x", "checkpoint")
    assert found["metadata"] == {"ss_clip_skip": "2"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    save_folder(tiny_checkpoint(), path)
    return path


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A diffusers folder that a test may spoil."""
    shutil.copytree(folder, tmp_path / "tiny", copy_function=os.link)
    return tmp_path / "tiny"


def edit(path: Path, **changes: object) -> None:
    content = json.loads(path.read_text()) | changes
    path.unlink()
    path.write_text(json.dumps(content))


def test_a_diffusers_folder_is_known_whole(copy: Path) -> None:
    found = identify(read_header(copy))
    assert (found.kind, found.family, found.missing, found.prediction) == (FileKind.CHECKPOINT, Family.SD1, (), "v")
    check_loadable(found)


@pytest.mark.parametrize(
    "changes",
    [
        {"unet": ["my_unet", "MyUNet"]},
        {"unet": ["os", "system"]},
        {"unet": ["diffusers", "../../evil"]},
        {"unet": ["diffusers", 7]},
        {"unet": ["diffusers"]},
        {"../unet": ["diffusers", "UNet2DConditionModel"]},
        {"_class_name": ["pipeline", "MyPipeline"]},
        {"_class_name": "MyPipeline"},
    ],
)
def test_a_folder_that_asks_for_code_is_refused_and_nothing_runs(copy: Path, changes: dict[str, object]) -> None:
    (copy / "my_unet.py").write_text("raise SystemExit('ran')")
    edit(copy / "model_index.json", **changes)
    with pytest.raises(UnsafeFile, match=r"is not run|is run$"):
        read_header(copy)


def test_what_a_pipeline_has_of_no_library_is_no_component(copy: Path) -> None:
    edit(copy / "model_index.json", safety_checker=[None, None], requires_safety_checker=[None, True])
    check_loadable(identify(read_header(copy)))


def test_variants_and_shards_are_found(copy: Path) -> None:
    unet = copy / "unet" / "diffusion_pytorch_model.safetensors"
    whole = read_header(copy)
    unet.rename(unet.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert read_header(copy).shapes == whole.shapes
    unet.with_name("diffusion_pytorch_model.fp16.safetensors").rename(unet.with_name("part-1.safetensors"))
    index = {"weight_map": dict.fromkeys(whole.tensors, "part-1.safetensors")}
    (copy / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    assert read_header(copy).shapes == whole.shapes


@pytest.mark.parametrize(
    "name", ["../vae/diffusion_pytorch_model.safetensors", "/etc/passwd", "a.bin", "..\\a.safetensors"]
)
def test_shards_outside_their_folder_are_refused(copy: Path, name: str) -> None:
    (copy / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    (copy / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": name}})
    )
    with pytest.raises(UnsafeFile, match="not a safetensors file in the same folder"):
        read_header(copy)


def test_a_folder_with_a_missing_shard_or_part_or_only_pickles_says_so(copy: Path) -> None:
    unet = copy / "unet"
    (unet / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(DamagedFile, match="tiny/unet has no weights"):
        read_header(copy)
    (unet / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x02")
    with pytest.raises(UnsafeFile, match=r"contains only diffusion_pytorch_model\.bin, a pickle"):
        read_header(copy)
    index = {"weight_map": {"a": "gone-00001-of-00002.safetensors"}}
    (unet / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(DamagedFile, match="lacks 1 of 1 parts"):
        read_header(copy)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": 1, "a": 2}', "[" * 100_000])
def test_a_broken_model_index_is_one_line(copy: Path, content: str) -> None:
    (copy / "model_index.json").unlink()
    (copy / "model_index.json").write_text(content)
    with pytest.raises(DamagedFile) as caught:
        read_header(copy)
    assert "\n" not in str(caught.value)


def test_a_folder_of_another_family_is_told_by_its_pipeline(copy: Path) -> None:
    edit(copy / "model_index.json", _class_name="FluxPipeline")
    assert identify(read_header(copy)).family is Family.FLUX


def test_single_file_tensors_are_told_apart_from_training_state() -> None:
    state, _ = single_file(tiny_checkpoint())
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert identify(header(shapes)).unused_tensors == 0
    assert identify(header(shapes | {"betas": (1000,)})).unused_tensors == 1
