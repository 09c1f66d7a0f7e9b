"""Pipelines of diffusers, tiny and whole: what they draw with our vectors is what we draw with their weights."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import tiny_sdxl
import torch
from clip_reference import tokenizer
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
    VQDiffusionScheduler,
)
from peft import LoraConfig
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from clipskip import LoraRef
from clipskip.diffusers import prompt_embeds, read_pipeline, scheduler_name, sweep, with_loras
from clipskip.encode import EncoderSettings, TextReader, condition, read_encoders
from clipskip.encode import prompt_embeds as prompt_embeds_of
from clipskip.errors import LoraError, SkipOutOfRange, SpecError, WrongKind
from clipskip.networks import TextShape, UNetShape, build_text_encoder, build_unet, build_vae
from clipskip.sample import Picture, sample
from clipskip.spec import Family, FileRef, Render, parse_skip

# diffusers' schedulers hand tensors to numpy in a way that numpy 2 has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TOLERANCE = 1e-4
"""Of pixels in 0..1: float32, sums in another order, guided steps and a decoder."""
STEPS, PX, SEED = 4, 64, 5
SD1_TEXT = TextShape(depth=12, width=32, heads=2, mlp_width=64)
SD1_UNET = UNetShape(
    block_out_channels=(32, 64),
    layers_per_block=1,
    cross_attention_dim=32,
    attention=(1, 0),
    attention_heads=(4, 4),
    norm_num_groups=8,
    sample_size=8,
)
KINDS = ["sd1", "sd2", "sdxl"]
PROMPT, NEGATIVE = "a (red:1.2) frog BREAK swamp", "blurry BREAK dark"


def parts_of(kind: str) -> tiny_sdxl.Parts:
    if kind == "sd1":
        return tiny_sdxl.make(3, text_encoder=SD1_TEXT, unet=SD1_UNET, vae=tiny_sdxl.VAE)
    return tiny_sdxl.sd2() if kind == "sd2" else tiny_sdxl.sdxl()


def loaded(module: Any, state: dict[str, torch.Tensor]) -> Any:
    """transformers' or diffusers' module with these weights, whichever names it has for them."""
    names = set(module.state_dict())
    module.load_state_dict({n if n in names else f"text_model.{n}": t.clone() for n, t in state.items()})
    return module.eval()


def words() -> CLIPTokenizer:
    """CLIP's tokenizer as pipelines have it, for one pipeline alone: textual inversions add to it."""
    own = deepcopy(tokenizer())
    own.model_max_length = 77
    return own


def pipeline(kind: str) -> Any:
    parts = parts_of(kind)
    shapes, states = parts.shapes, parts.states

    def text(part: str, build: Any) -> Any:
        config = CLIPTextConfig(**shapes[part].config(), bos_token_id=49406, eos_token_id=49407)
        return loaded(build(config), states[part])

    schedule = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="linspace", steps_offset=1
    )
    common = {
        "text_encoder": text("text_encoder", CLIPTextModel),
        "tokenizer": words(),
        "unet": loaded(UNet2DConditionModel(**shapes["unet"].config()), states["unet"]),
        "vae": loaded(AutoencoderKL(**shapes["vae"].config()), states["vae"]),
        "scheduler": schedule,
        "feature_extractor": None,
    }
    if kind == "sdxl":
        second = text("text_encoder_2", CLIPTextModelWithProjection)
        pipe = StableDiffusionXLPipeline(**common, text_encoder_2=second, tokenizer_2=words())
    else:
        pipe = StableDiffusionPipeline(**common, safety_checker=None, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def made() -> Callable[[str], Any]:
    known: dict[str, Any] = {}

    def get(kind: str) -> Any:
        if kind not in known:
            known[kind] = pipeline(kind)
        return known[kind]

    return get


def drawn(pipe: Any, embeds: Any, *, steps: int = STEPS) -> Any:
    return pipe(
        **embeds,
        generator=torch.Generator().manual_seed(SEED),
        num_inference_steps=steps,
        guidance_scale=7.0,
        height=PX,
        width=PX,
        output_type="np",
    ).images[0]


FAMILIES = {"sd1": Family.SD1, "sd2": Family.SD2, "sdxl": Family.SDXL}


@torch.no_grad()
def ours_of(kind: str, skip: str) -> Any:
    """Our picture from the same weights, in float32, before its colours are rounded to bytes."""
    parts = parts_of(kind)
    texts = [part for part in ("text_encoder", "text_encoder_2") if part in parts.states]
    reader = TextReader.of(
        *(build_text_encoder(parts.states[part], parts.shapes[part]) for part in texts), family=FAMILIES[kind]
    )
    unet = build_unet(dict(parts.states["unet"]), parts.shapes["unet"], dtype=torch.float32, device="cpu")
    vae = build_vae(parts.states["vae"], parts.shapes["vae"])
    render = Render(
        prompt=PROMPT,
        negative_prompt=NEGATIVE,
        model=FileRef(name="m"),
        clip_skip=parse_skip(skip),
        steps=STEPS,
        sampler="Euler",
        seed=SEED,
        width=PX,
        height=PX,
    )
    *_, step = sample(unet, [Picture(render=render, conditioning=condition(reader, render))])
    pixels = vae.decode(step.latent / parts.shapes["vae"].scaling_factor)[0]
    return (pixels / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).numpy()


def write_lora(path: Path, kind: str) -> LoraRef:
    """A LoRA of both halves, whose modules have different alphas."""
    text = parts_of(kind).shapes["text_encoder"].width
    unet = parts_of(kind).states["unet"]["down_blocks.0.resnets.0.conv1.weight"].shape
    numbers = torch.Generator().manual_seed(1)
    tensors = {}
    for name, (out, inside), alpha in (
        ("lora_te1" if kind == "sdxl" else "lora_te", (text, text), 2.0),
        ("lora_unet", (unet[0], unet[0]), 8.0),
    ):
        module = "text_model_encoder_layers_3_self_attn_q_proj" if "te" in name else "mid_block_attentions_0_proj_out"
        if name == "lora_unet":
            size = parts_of(kind).states["unet"]["mid_block.attentions.0.proj_out.weight"].shape
            out, inside = size[0], size[1]
        shape = size[2:] if name == "lora_unet" else ()
        tensors[f"{name}_{module}.lora_down.weight"] = torch.randn(4, inside, *shape, generator=numbers) * 0.3
        tensors[f"{name}_{module}.lora_up.weight"] = torch.randn(out, 4, *shape, generator=numbers) * 0.3
        tensors[f"{name}_{module}.alpha"] = torch.tensor(alpha)
    save_file(tensors, path)
    return LoraRef(name=str(path))


@pytest.mark.parametrize("kind", KINDS)
def test_a_pipeline_draws_with_our_vectors_what_we_draw_with_its_weights(kind: str, made: Callable[[str], Any]) -> None:
    pipe = made(kind)
    for skip in ("2", "3/7") if kind == "sdxl" else ("2", "3.5"):
        ours, theirs = ours_of(kind, skip), drawn(pipe, prompt_embeds(pipe, PROMPT, NEGATIVE, clip_skip=skip))
        assert theirs.std() > 0.05, "a picture, not one colour"
        assert np.abs(ours - theirs).max() <= TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_a_lora_in_the_pipeline_changes_the_picture_and_leaves_no_trace(
    kind: str, made: Callable[[str], Any], tmp_path: Path
) -> None:
    pipe, lora = made(kind), write_lora(tmp_path / "ogre.safetensors", kind)
    state = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
    plain = prompt_embeds(pipe, PROMPT, clip_skip=2)["prompt_embeds"]
    alone = prompt_embeds(pipe, PROMPT, clip_skip=2, loras=[lora])["prompt_embeds"]
    with with_loras(pipe, [lora]):
        assert torch.equal(alone, prompt_embeds(pipe, PROMPT, clip_skip=2)["prompt_embeds"])
        assert not all(torch.equal(state[name], value) for name, value in pipe.unet.state_dict().items())
    assert not torch.allclose(plain, alone, atol=1e-3)
    assert torch.equal(plain, prompt_embeds(pipe, PROMPT, clip_skip=2)["prompt_embeds"])
    assert all(torch.equal(state[name], value) for name, value in pipe.unet.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
def test_a_sweep_of_a_pipeline_is_what_the_pipeline_draws(
    kind: str, made: Callable[[str], Any], tmp_path: Path
) -> None:
    pipe, lora = made(kind), write_lora(tmp_path / "ogre.safetensors", kind)
    settings: dict[str, Any] = {"steps": STEPS, "seed": SEED, "width": PX, "height": PX, "loras": [lora]}
    made_sweep = sweep(pipe, PROMPT, NEGATIVE, folder=tmp_path / "out", clip_skips="2,3", **settings)
    assert made_sweep.grid.exists() and made_sweep.page.exists()
    with with_loras(pipe, [lora]):
        expected = drawn(pipe, prompt_embeds(pipe, PROMPT, NEGATIVE, clip_skip=3))
    with Image.open(made_sweep.place(1, 1)) as picture:
        assert np.array_equal(np.asarray(picture), (expected * 255).round().astype(np.uint8))
    before = made_sweep.place(0, 0).stat().st_mtime_ns
    again = sweep(pipe, PROMPT, NEGATIVE, folder=tmp_path / "out", clip_skips="2,3", **settings)
    assert again.place(0, 0).stat().st_mtime_ns == before, "what is there is kept"


def test_sd2_pipelines_without_their_last_layer_say_what_they_have(made: Callable[[str], Any]) -> None:
    reader = read_pipeline(made("sd2"))
    assert (reader.family, reader.depth) == (Family.SD2, 24)
    with pytest.raises(SkipOutOfRange, match="24 layers"):
        prompt_embeds(made("sd2"), "a frog", clip_skip=25)


def test_a_textual_inversion_of_the_pipeline_is_read_as_its_vectors() -> None:
    pipe = pipeline("sd1")
    vectors = torch.randn(2, SD1_TEXT.width, generator=torch.Generator().manual_seed(2))
    pipe.load_textual_inversion(vectors, token="gnome-style")
    assert [(e.name, e.count) for e in read_pipeline(pipe).embeddings] == [("gnome-style", 2)]
    ours = prompt_embeds(pipe, "a gnome-style frog", clip_skip=1)["prompt_embeds"][0]
    theirs = pipe.encode_prompt("a gnome-style frog", "cpu", 1, False)[0][0]
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_the_readers_weights_are_the_pipelines_own(made: Callable[[str], Any]) -> None:
    pipe = made("sd1")
    theirs = {value.data_ptr() for value in pipe.text_encoder.state_dict().values()}
    ours = read_pipeline(pipe).encoders[0].network.state_dict().values()
    assert all(value.data_ptr() in theirs for value in ours)


def test_the_encoders_layers_are_found_under_every_name(made: Callable[[str], Any]) -> None:
    states = parts_of("sdxl").states
    flat = read_encoders(states["text_encoder"], states["text_encoder_2"], family=Family.SDXL, settings=HEADS)
    nested = read_encoders(
        {f"text_model.{name}": tensor for name, tensor in states["text_encoder"].items()},
        tiny_sdxl.openclip(states["text_encoder_2"], "", tiny_sdxl.G.depth),
        family=Family.SDXL,
        settings=HEADS,
    )
    first, second = (prompt_embeds_of(reader, PROMPT) for reader in (flat, nested))
    live = prompt_embeds(made("sdxl"), PROMPT, clip_skip=2)
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]) and torch.equal(tensor, live[name])


HEADS = [EncoderSettings(heads=2), EncoderSettings(heads=2)]


def test_a_pipeline_that_clip_does_not_read_alone_is_told_so(made: Callable[[str], Any]) -> None:
    class FluxPipeline:
        text_encoder = made("sd1").text_encoder

    with pytest.raises(WrongKind, match="FluxPipeline has no UNet"):
        prompt_embeds(FluxPipeline(), "a frog")
    pipe = pipeline("sd1")
    pipe.tokenizer = CLIPTokenizer(vocab={"a</w>": 0, "<|startoftext|>": 1, "<|endoftext|>": 2}, merges=[])
    with pytest.raises(WrongKind, match="not CLIP's"):
        prompt_embeds(pipe, "a frog")


def test_loras_of_peft_are_refused_before_they_are_read_wrong() -> None:
    pipe = pipeline("sd1")
    pipe.text_encoder.add_adapter(LoraConfig(r=2, target_modules=["q_proj"]))
    with pytest.raises(WrongKind, match="unload_lora_weights"):
        prompt_embeds(pipe, "a frog")


def test_a_lora_of_another_model_is_an_error(made: Callable[[str], Any], tmp_path: Path) -> None:
    lora = write_lora(tmp_path / "sd2.safetensors", "sd2")
    with pytest.raises(LoraError, match="does not fit"):
        prompt_embeds(made("sd1"), "a frog", loras=[lora])


def test_a_pipelines_lora_is_one_of_its_family(made: Callable[[str], Any], tmp_path: Path) -> None:
    """By a name that SDXL alone has, for its second text encoder."""
    width, key = (
        parts_of("sdxl").shapes["text_encoder_2"].width,
        "lora_te2_text_model_encoder_layers_3_self_attn_q_proj",
    )
    tensors = {f"{key}.lora_up.weight": torch.ones(width, 2), f"{key}.lora_down.weight": torch.ones(2, width)}
    save_file(tensors, tmp_path / "xl.safetensors")
    lora = LoraRef(name=str(tmp_path / "xl.safetensors"))
    plain, changed = (prompt_embeds(made("sdxl"), PROMPT, clip_skip=2, loras=loras) for loras in ([], [lora]))
    assert not torch.allclose(plain["pooled_prompt_embeds"], changed["pooled_prompt_embeds"], atol=1e-3)
    with pytest.raises(LoraError, match=r"a LoRA for SDXL, and this model is SD 1\.x"):
        prompt_embeds(made("sd1"), PROMPT, loras=[lora])


def test_a_scheduler_has_the_name_that_settings_have_for_it_or_is_refused() -> None:
    assert scheduler_name(EulerDiscreteScheduler(use_karras_sigmas=True)) == ("Euler", "Karras")
    assert scheduler_name(UniPCMultistepScheduler()) == ("UniPC bh2", "Automatic")
    with pytest.raises(SpecError, match="VQDiffusionScheduler"):
        scheduler_name(VQDiffusionScheduler(num_vec_classes=8))


def test_the_notebook_runs_from_top_to_bottom(
    made: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made("sd1").save_pretrained(tmp_path / "model")
    for name, value in (("PIPELINE", tmp_path / "model"), ("OUT", tmp_path), ("SIZE", PX)):
        monkeypatch.setenv(name, str(value))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    space: dict[str, Any] = {}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, NOTEBOOK.name, "exec"), space)
    said = capsys.readouterr().out
    assert "1 1.0" in said and "grid.png index.html" in said and "12 layers" in said
    assert (tmp_path / "frog.png").exists() and (tmp_path / "sweep" / "grid.png").exists()


NOTEBOOK = Path(__file__).parents[1] / "docs/notebooks/diffusers.ipynb"
