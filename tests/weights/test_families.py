"""SDXL and SD 2.x checkpoints: every form that they come in is read, and what is not drawn is refused by its name."""

from pathlib import Path

import pytest
import tiny_sdxl
import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from clipskip.errors import DamagedFile, FileError, WrongKind
from clipskip.networks import UNetShape, tensors_of
from clipskip.spec.family import Family
from clipskip.weights import canonical, load_checkpoint, load_text, read_facts, read_header
from clipskip.weights.container import Header
from clipskip.weights.shape_reader import unet_shape

ONE = torch.ones(1)


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def refusal(path: Path, kind: type[FileError]) -> str:
    with pytest.raises(kind) as caught:
        load_checkpoint(path, dtype=torch.float32)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_sdxl_file_gives_both_encoders_the_unet_and_the_vae(tmp_path: Path) -> None:
    parts = tiny_sdxl.sdxl()
    loaded = load_checkpoint(tiny_sdxl.write(parts, tmp_path / "xl.safetensors"), dtype=torch.float32)
    assert loaded.facts.family is Family.SDXL and loaded.facts.depths == (12, 32)
    assert [one.shape for one in loaded.facts.encoders] == [tiny_sdxl.L, tiny_sdxl.G]
    assert (loaded.facts.unet, loaded.facts.vae) == (tiny_sdxl.UNET, tiny_sdxl.VAE)
    assert same(loaded.text[0], parts.states["text_encoder"]) and same(loaded.text[1], parts.states["text_encoder_2"])
    assert same(loaded.unet, parts.states["unet"]) and same(loaded.vae, parts.states["vae"])


def test_an_sd2_file_gives_its_openclip_encoder(tmp_path: Path) -> None:
    parts = tiny_sdxl.sd2()
    loaded = load_checkpoint(tiny_sdxl.write(parts, tmp_path / "sd2.safetensors"), dtype=torch.float32)
    assert loaded.facts.family is Family.SD2 and loaded.facts.encoders[0].shape == tiny_sdxl.H
    assert same(loaded.text[0], parts.states["text_encoder"]) and same(loaded.unet, parts.states["unet"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_a_pruned_file_of_few_bits_is_read_exactly(tmp_path: Path, dtype: torch.dtype) -> None:
    parts = tiny_sdxl.sdxl()
    loaded = load_checkpoint(tiny_sdxl.write(parts, tmp_path / "xl.safetensors", dtype=dtype), dtype=torch.float32)
    rounded = {name: tensor.to(dtype).float() for name, tensor in parts.states["unet"].items()}
    assert same(loaded.unet, rounded)


@pytest.mark.parametrize(
    ("end", "per_output"), [("scale_weight", False), ("weight_scale", False), ("weight_scale", True)]
)
def test_scaled_fp8_is_multiplied_out(end: str, per_output: bool, tmp_path: Path) -> None:
    """ComfyUI's files: a marker, and beside each matrix what it is multiplied by."""
    parts, expected = tiny_sdxl.sdxl(), dict[str, Tensor]()
    state = {name: tensor.contiguous() for name, tensor in tiny_sdxl.single_file(parts).items()}
    for name in [n for n, t in state.items() if n.startswith("model.diffusion_model.") and t.dim() == 2]:
        largest = state[name].abs().amax(1 if per_output else (0, 1), keepdim=per_output)
        scale = largest / 448
        state[name] = (state[name] / scale).to(torch.float8_e4m3fn)
        state[f"{name.removesuffix('weight')}{end}"] = scale
        expected[name] = state[name].float() * scale
    state["model.diffusion_model.scaled_fp8"] = torch.zeros(2).to(torch.float8_e4m3fn)
    path = tmp_path / "scaled.safetensors"
    save_file(state, path, metadata=tiny_sdxl.metadata(parts))
    loaded, names = load_checkpoint(path, dtype=torch.float32), canonical(read_header(path).shapes)["unet"]
    assert len(expected) > 50
    for name, source in names.items():
        if source.name in expected:
            assert torch.equal(loaded.unet[name], expected[source.name])
            assert relative_error(loaded.unet[name], parts.states["unet"][name]) < 0.07  # a sixteenth: e4m3 has 3 bits


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


def test_a_scale_of_another_length_is_refused_by_its_name(tmp_path: Path) -> None:
    state = {name: tensor.contiguous() for name, tensor in tiny_sdxl.single_file(tiny_sdxl.sdxl()).items()}
    state["model.diffusion_model.time_embed.0.scale_weight"] = torch.ones(3)
    save_file(state, tmp_path / "odd.safetensors", metadata=tiny_sdxl.metadata(tiny_sdxl.sdxl()))
    assert "time_embed.0.scale_weight has 3 numbers" in refusal(tmp_path / "odd.safetensors", DamagedFile)


def test_a_diffusers_folder_is_read_with_its_schedulers_word(tmp_path: Path) -> None:
    parts = tiny_sdxl.sdxl()
    ends = {"bos_token_id": 49406, "eos_token_id": 49407}
    text = CLIPTextModel(CLIPTextConfig(**tiny_sdxl.L.config(), **ends))
    text_2 = CLIPTextModelWithProjection(CLIPTextConfig(**tiny_sdxl.G.config(), **ends))
    unet, vae = UNet2DConditionModel(**tiny_sdxl.UNET.config()), AutoencoderKL(**tiny_sdxl.VAE.config())
    text.load_state_dict(parts.states["text_encoder"])
    named = parts.states["text_encoder_2"].items()
    text_2.load_state_dict({n if n.startswith("text_projection") else f"text_model.{n}": t for n, t in named})
    unet.load_state_dict(parts.states["unet"])
    vae.load_state_dict(parts.states["vae"])
    StableDiffusionXLPipeline(
        vae=vae, text_encoder=text, text_encoder_2=text_2, tokenizer=None, tokenizer_2=None, unet=unet,
        scheduler=EulerDiscreteScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True),
    ).save_pretrained(tmp_path / "noob")  # fmt: skip
    loaded = load_checkpoint(tmp_path / "noob", dtype=torch.float32)
    assert same(loaded.text[1], parts.states["text_encoder_2"]) and same(loaded.unet, parts.states["unet"])
    assert loaded.facts.unet == tiny_sdxl.UNET and loaded.facts.encoders[1].shape == tiny_sdxl.G
    assert (loaded.facts.prediction, loaded.facts.zero_terminal_snr) == ("v", True)


def test_v_prediction_and_zero_terminal_snr_are_told_by_empty_tensors(tmp_path: Path) -> None:
    path = tiny_sdxl.write(tiny_sdxl.sdxl(), tmp_path / "noob.safetensors", v_pred=torch.zeros(0), ztsnr=torch.zeros(0))
    facts = read_facts(path)
    assert (facts.prediction, facts.zero_terminal_snr) == ("v", True)
    facts = read_facts(tiny_sdxl.write(tiny_sdxl.sdxl(), tmp_path / "vonly.safetensors", v_pred=torch.zeros(0)))
    assert (facts.prediction, facts.zero_terminal_snr) == ("v", False)


@pytest.mark.parametrize(
    "text",
    ['parameterization: "v"', "scaling_config:\n  target: sgm.modules.diffusionmodules.denoiser_scaling.VScaling"],
)
def test_a_yaml_beside_the_file_says_v(tmp_path: Path, text: str) -> None:
    path = tiny_sdxl.write(tiny_sdxl.sdxl(), tmp_path / "xl.safetensors")
    assert read_facts(path).prediction == "epsilon"
    (tmp_path / "xl.yaml").write_text(text)
    assert read_facts(path).prediction == "v"


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"edm_mean": torch.zeros(1, 4, 1, 1), "edm_std": torch.ones(1, 4, 1, 1)}, "is Playground v2.5"),
        ({"edm_vpred.sigma_max": ONE, "edm_vpred.sigma_min": ONE.clone()}, "is a CosXL checkpoint"),
    ],
)
def test_what_was_trained_at_edms_levels_is_refused_by_name(
    tmp_path: Path, extra: dict[str, Tensor], words: str
) -> None:
    state = {name: tensor.contiguous() for name, tensor in tiny_sdxl.single_file(tiny_sdxl.sdxl()).items()}
    save_file(state | extra, tmp_path / "x.safetensors")
    assert words in refusal(tmp_path / "x.safetensors", WrongKind)


def test_a_refiner_alone_is_refused_by_name(tmp_path: Path) -> None:
    path = tiny_sdxl.write(tiny_sdxl.refiner(), tmp_path / "refiner.safetensors")
    assert "is SDXL's refiner, which finishes pictures that a base model began" in refusal(path, WrongKind)


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        ("conditioner.embedders.1.model.text_projection", "text_projection"),
        ("conditioner.embedders.1.model.transformer.resblocks.15.", "second text encoder layer 15"),
        ("conditioner.embedders.0.", "the text encoder"),
        ("model.diffusion_model.label_emb.0.2.bias", "add_embedding.linear_2.bias"),
    ],
)
def test_an_incomplete_sdxl_file_says_what_it_lacks(tmp_path: Path, lost: str, words: str) -> None:
    state = {n: t.contiguous() for n, t in tiny_sdxl.single_file(tiny_sdxl.sdxl()).items() if not n.startswith(lost)}
    save_file(state, tmp_path / "x.safetensors", metadata=tiny_sdxl.metadata(tiny_sdxl.sdxl()))
    assert words in refusal(tmp_path / "x.safetensors", DamagedFile)


def test_the_text_encoders_alone_are_read_from_a_file(tmp_path: Path) -> None:
    parts = tiny_sdxl.sdxl()
    text = load_text(tiny_sdxl.write(parts, tmp_path / "xl.safetensors"), dtype=torch.float32)
    assert [one.part for one in text.encoders] == ["text_encoder", "text_encoder_2"]
    assert same(text.states[1], parts.states["text_encoder_2"])


FULL = UNetShape(
    block_out_channels=(320, 640, 1280),
    layers_per_block=2,
    cross_attention_dim=2048,
    attention=(0, 2, 10),
    middle_attention=10,
    attention_heads=(5, 10, 20),
    use_linear_projection=True,
    added_width=2816,
    sample_size=128,
)
FULL_REFINER = UNetShape(
    block_out_channels=(384, 768, 1536, 1536),
    layers_per_block=2,
    cross_attention_dim=1280,
    attention=(0, 4, 4, 0),
    middle_attention=4,
    attention_heads=(6, 12, 24, 24),
    use_linear_projection=True,
    added_width=2560,
    sample_size=128,
)
FULL_SD2 = UNetShape(
    block_out_channels=(320, 640, 1280, 1280),
    layers_per_block=2,
    cross_attention_dim=1024,
    attention=(1, 1, 1, 0),
    attention_heads=(5, 10, 20, 20),
    use_linear_projection=True,
)


@pytest.mark.parametrize(
    ("shape", "family", "names"),
    [(FULL, Family.SDXL, 1680), (FULL_REFINER, Family.SDXL, 1220), (FULL_SD2, Family.SD2, 686)],
    ids=["SDXL", "refiner", "SD 2.x"],
)
def test_a_full_size_unet_is_told_from_its_tensors_alone(shape: UNetShape, family: Family, names: int) -> None:
    header = Header(path=Path("x.safetensors"), size=0, tensors={}, metadata={})
    assert unet_shape(tensors_of(shape), header, row=family.value) == shape
    with torch.device("meta"):
        theirs = UNet2DConditionModel(**shape.config()).state_dict()
    assert tensors_of(shape) == {name: tuple(tensor.shape) for name, tensor in theirs.items()}
    assert len(theirs) == names
