"""What is measured on SDXL and SD 2.x against transformers' encoders, diffusers' UNet and an Euler loop and ratios written out anew."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tiny_sdxl
import torch
from clip_reference import tokenizer
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from clipskip.advise import Wanted, advise
from clipskip.advise.prompted import Prompted, Question, measure
from clipskip.networks import TextShape
from clipskip.score.cells import References, measure_row
from clipskip.spec import ClipSkip, LoraRef, Request, Skip
from clipskip.sweep import Model, resolve
from clipskip.weights import Library, load_checkpoint

SKIPS, REFERENCE, CFG, SEED = (1, 2, 12), 2, 7.0, 5
PHRASES = ("a red frog", "swamp")
PROMPT = ", ".join(PHRASES)
START, END = 49406, 49407
TOLERANCE = 1e-3
"""Of ratios, which are given to four places: float32, sums in another order, seven guided steps."""
States = Mapping[str, dict[str, Tensor]]
XL_LORA = {
    "lora_te1_text_model_encoder_layers_3_self_attn_q_proj": "text_encoder.encoder.layers.3.self_attn.q_proj",
    "lora_te2_text_model_encoder_layers_20_mlp_fc1": "text_encoder_2.encoder.layers.20.mlp.fc1",
    "lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_k": (
        "unet.down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k"
    ),
}
SD2_LORA = {
    "lora_te_text_model_encoder_layers_20_mlp_fc2": "text_encoder.encoder.layers.20.mlp.fc2",
    "lora_unet_down_blocks_0_attentions_0_proj_in": "unet.down_blocks.0.attentions.0.proj_in",
}


@dataclass(frozen=True)
class Case:
    name: str
    prediction: str
    zero_snr: bool
    negative: str

    @property
    def is_sdxl(self) -> bool:
        return self.name == "sdxl"

    @property
    def parts(self) -> tiny_sdxl.Parts:
        return tiny_sdxl.sdxl() if self.is_sdxl else tiny_sdxl.sd2()


CASES = (
    Case("sdxl", "epsilon", False, ""),
    Case("sdxl", "v", True, "blurry"),
    Case("sd2", "v", False, "blurry"),
)


def write(case: Case, folder: Path, *, metadata: Mapping[str, str]) -> States:
    """The checkpoint and a LoRA for it; the weights with the LoRA in them."""
    parts = case.parts
    marks = {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)} if case.zero_snr else {}
    tiny_sdxl.write(parts, folder / "m.safetensors", **marks)
    numbers, tensors = torch.Generator().manual_seed(1), {}
    states = {part: dict(state) for part, state in parts.states.items()}
    for spelling, module in (XL_LORA if case.is_sdxl else SD2_LORA).items():
        part, _, name = module.partition(".")
        out, inputs = states[part][f"{name}.weight"].shape
        up, down = (torch.randn(size, generator=numbers) * 0.3 for size in ((out, 2), (2, inputs)))
        tensors |= {f"{spelling}.lora_up.weight": up, f"{spelling}.lora_down.weight": down}
        tensors[f"{spelling}.alpha"] = torch.tensor(2.0)
        states[part][f"{name}.weight"] = states[part][f"{name}.weight"] + up @ down
    save_file(tensors, folder / "mine.safetensors", metadata=dict(metadata))
    return states


def opened(case: Case, folder: Path) -> Model:
    cpu = torch.device("cpu")
    checkpoint = load_checkpoint(
        folder / "m.safetensors",
        dtype=torch.float32,
        text_dtype=torch.float32,
        device=cpu,
        prediction=None if case.is_sdxl else "v",
    )
    assert checkpoint.facts.prediction == case.prediction
    return Model(checkpoint, device=cpu, dtype=torch.float32)


@dataclass(frozen=True)
class Text:
    tokens: Tensor
    pooled: Tensor | None


class Theirs:
    """Weights in transformers' and diffusers' networks."""

    def __init__(self, case: Case, states: States) -> None:
        self.case = case
        shapes = case.parts.shapes
        self.encoders = [
            _encoder(states[part], shapes[part]) for part in ("text_encoder", "text_encoder_2") if part in states
        ]
        self.unet = UNet2DConditionModel(**shapes["unet"].config()).eval()
        self.unet.load_state_dict(states["unet"])

    def read(self, text: str, skip: int) -> Text:
        """Layer -skip of each; through the last norm on SD 2.x alone."""
        tokens = tokenizer()(text, add_special_tokens=False).input_ids
        sides, pooled = [], None
        for number, encoder in enumerate(self.encoders):
            pad = END if self.case.is_sdxl and number == 0 else 0
            ids = torch.tensor([[START, *tokens, END, *[pad] * (75 - len(tokens))]])
            found = encoder(ids, output_hidden_states=True)
            state = found.hidden_states[-skip]
            sides.append(state if self.case.is_sdxl else encoder.final_layer_norm(state))
            pooled = getattr(found, "text_embeds", None)
        return Text(torch.cat(sides, -1), pooled)

    def negative(self, skip: int) -> Text:
        found = self.read(self.case.negative, skip)
        if self.case.negative or found.pooled is None:
            return found
        return Text(torch.zeros_like(found.tokens), torch.zeros_like(found.pooled))

    def predict(self, asked: Sequence[tuple[Tensor, int, Text]]) -> Tensor:
        """A row for each latent, timestep and text."""
        latents, times, texts = zip(*asked, strict=True)
        pooled, more = [text.pooled for text in texts if text.pooled is not None], {}
        if pooled:
            side = float(tiny_sdxl.PX)
            sizes = torch.tensor([[side, side, 0.0, 0.0, side, side]]).expand(len(asked), 6)
            more = {"added_cond_kwargs": {"text_embeds": torch.cat(pooled), "time_ids": sizes}}
        tokens = torch.cat([text.tokens for text in texts])
        said: Tensor = self.unet(torch.stack(latents), torch.tensor(times), encoder_hidden_states=tokens, **more).sample
        return said


def _encoder(state: dict[str, Tensor], shape: TextShape) -> CLIPTextModel | CLIPTextModelWithProjection:
    config = CLIPTextConfig(**{**shape.config(), "vocab_size": shape.vocabulary}, bos_token_id=START, eos_token_id=END)
    if not shape.projection:
        plain = CLIPTextModel(config).eval()
        plain.load_state_dict(state)
        return plain
    pooling = CLIPTextModelWithProjection(config).eval()
    pooling.load_state_dict({n if n.startswith("text_proj") else f"text_model.{n}": t for n, t in state.items()})
    return pooling


def alphas(case: Case) -> np.ndarray:
    """Cumulated alphas; of zero terminal SNR by Lin et al. 2024, algorithm 1, with A1111's last one."""
    kept = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
    if case.zero_snr:
        root = np.sqrt(kept)
        kept = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
        kept[-1] = 4.8973451890853435e-08
    return kept


def clean(case: Case, latent: Tensor, said: Tensor, kept: float) -> Tensor:
    """The picture in a latent sqrt(kept) x + sqrt(1 - kept) noise."""
    a, s = kept**0.5, (1 - kept) ** 0.5
    return a * latent - s * said if case.prediction == "v" else (latent - s * said) / a


def seen(case: Case, model: Theirs) -> list[tuple[Tensor, int]]:
    """Latents after steps 1, 3, 5 and 7 of ten by Euler, at the reference, and their timesteps."""
    times, table = [999 - 111 * step for step in range(10)], alphas(case)
    levels = ((1 - table) / table) ** 0.5
    prompt, negative = model.read(PROMPT, REFERENCE), model.negative(REFERENCE)
    x = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(SEED)) * levels[999]
    found = []
    for step, (now, then) in enumerate(pairwise(times)):
        scaled = x / float(np.hypot(1, levels[now]))
        if step in (1, 3, 5, 7):
            found.append((scaled, now))
        below, above = model.predict([(scaled, now, negative), (scaled, now, prompt)])
        said = below + CFG * (above - below)
        denoised = clean(case, scaled, said, table[now])
        x = x + (x - denoised) / levels[now] * (levels[then] - levels[now])
    return found


def long(rows: Sequence[Tensor]) -> np.ndarray:
    return torch.stack(list(rows)).double().flatten().numpy()


def predicted(model: Theirs, views: Sequence[tuple[Tensor, int]], texts: Mapping[int, Text]) -> dict[int, np.ndarray]:
    """By Clip Skip, one long vector of all views."""
    rows = model.predict([(latent, time, text) for text in texts.values() for latent, time in views])
    return {skip: long(some) for skip, some in zip(texts, rows.split(len(views)), strict=True)}


def share(effect: Mapping[int, np.ndarray], skip: int) -> float:
    return float(effect[skip] @ effect[REFERENCE] / (effect[REFERENCE] @ effect[REFERENCE]))


def length(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(one) / np.linalg.norm(other))


def measured(case: Case, folder: Path) -> tuple[Prompted, Mapping[Skip, Mapping[str, float]], States]:
    """By `measure`, and of the cells of a sweep's row."""
    states = write(case, folder, metadata={})
    model = opened(case, folder)
    request = Request(
        prompt=PROMPT, negative_prompt=case.negative, seed=SEED, cfg_scale=CFG, loras=(LoraRef(name="mine"),),
        width=tiny_sdxl.PX, height=tiny_sdxl.PX, rng="CPU",
    )  # fmt: skip
    render, extras = resolve(request, model.facts, Library((folder,)))
    own = {ref.hash: REFERENCE for ref in render.loras}
    question = Question(render=render, extras=extras, skips=SKIPS, reference=REFERENCE, lora_references=own)
    references = References(model=REFERENCE, loras=own)
    skips = [ClipSkip(skip) for skip in SKIPS]
    cells = measure_row(model, render, extras, skips=skips, references=references, tell=lambda rows: None)
    return measure(model, question), cells, states


@torch.no_grad()
@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[pytest.mark.slow] if case.zero_snr else []) for case in CASES],
    ids=lambda case: f"{case.name} {case.prediction}",
)
def test_what_is_measured_is_what_other_networks_give(case: Case, tmp_path: Path) -> None:
    found, cells, states = measured(case, tmp_path)

    def scores(name: str) -> list[float]:
        return [cells[ClipSkip(skip)][name] for skip in SKIPS]

    changed, plain = Theirs(case, states), Theirs(case, case.parts.states)
    views, table = seen(case, changed), alphas(case)

    prompts, below = ({s: read(s) for s in SKIPS} for read in (lambda s: changed.read(PROMPT, s), changed.negative))
    said, unsaid = predicted(changed, views, prompts), predicted(changed, views, below)
    guidance = {skip: said[skip] - unsaid[skip] for skip in SKIPS}
    kept = [share(guidance, s) for s in SKIPS]
    assert found.guidance_kept == pytest.approx(kept, abs=TOLERANCE)
    assert scores("guidance_kept") == pytest.approx(kept, abs=TOLERANCE)
    assert found.guidance_size == pytest.approx(
        [length(guidance[s], guidance[REFERENCE]) for s in SKIPS], abs=TOLERANCE
    )
    anchor = prompts[REFERENCE].tokens
    moved = [length((prompts[s].tokens - anchor).numpy(), (anchor - below[REFERENCE].tokens).numpy()) for s in SKIPS]
    assert found.conditioning_distance == pytest.approx(moved, abs=TOLERANCE)
    assert scores("conditioning_moved") == pytest.approx(moved, abs=TOLERANCE)

    guided = {s: (unsaid[s] + CFG * guidance[s]).reshape(len(views), 4, 8, 8) for s in SKIPS}
    guesses = {
        s: [
            clean(case, latent, torch.from_numpy(rows), table[time])
            for (latent, time), rows in zip(views, guided[s], strict=True)
        ]
        for s in SKIPS
    }
    spread = long([guess - guess.mean((1, 2), keepdim=True) for guess in guesses[REFERENCE]])
    far = [length(long(guesses[s]) - long(guesses[REFERENCE]), spread) for s in SKIPS]
    assert found.change == pytest.approx(far, rel=TOLERANCE, abs=TOLERANCE)
    assert scores("picture_changed") == pytest.approx(far, rel=TOLERANCE, abs=TOLERANCE)
    signs = [(k < 0.5) + (m > 1) + (c > 1) for k, m, c in zip(kept, moved, far, strict=True)]
    assert scores("broken_signs") == signs

    for phrase, other in zip(found.phrases, reversed(PHRASES), strict=True):
        left = predicted(changed, views, {s: changed.read(other, s) for s in SKIPS})
        reaction = [length(said[s] - left[s], guidance[s]) for s in SKIPS]
        assert phrase.reaction == pytest.approx(reaction, abs=TOLERANCE)

    (lora,) = found.loras
    before = {s: plain.read(PROMPT, s) for s in SKIPS}
    base, other = predicted(plain, views, before), predicted(plain, views, {s: plain.negative(s) for s in SKIPS})
    added = {s: said[s] - base[s] for s in SKIPS}
    by_text, by_unet = predicted(plain, views, prompts), predicted(changed, views, before)
    assert lora.uptake == pytest.approx([share(added, s) for s in SKIPS], abs=TOLERANCE)
    assert scores("lora_uptake") == pytest.approx([share(added, s) for s in SKIPS], abs=TOLERANCE)
    for ours, theirs in ((lora.whole, said), (lora.by_text, by_text), (lora.by_unet, by_unet)):
        sizes = [length(theirs[s] - base[s], base[s] - other[s]) for s in SKIPS]
        assert ours == pytest.approx(sizes, rel=TOLERANCE, abs=TOLERANCE) and max(ours) > 0.01


def test_sdxl_is_advised_its_familys_value_whatever_a_lora_says(tmp_path: Path) -> None:
    case = CASES[0]
    write(case, tmp_path, metadata={"ss_clip_skip": "1"})
    request = Request(prompt=PROMPT, loras=(LoraRef(name="mine"),), width=64, height=64)
    advice = advise(opened(case, tmp_path), Wanted(request=request, skips=(1, 2)), Library((tmp_path,)))
    about = {one.about: one for one in advice.evidence}
    assert {(one.skip, one.weight) for one in about.values()} == {(2, 0.97)}
    assert "ss_clip_skip = '1' is not used" in about["mine"].source
    assert advice.contradictions == () and "without the final norm" in advice.notes[0]
    assert advice.prompted is not None and advice.prompted.reference == 2
    # the second encoder's pooled vector comes from its last layer: no Clip Skip silences this LoRA's text part
    assert advice.prompted.loras[0].text_layers == (4,) and advice.prompted.loras[0].text_dead_from is None


def test_a_family_with_one_clip_skip_is_not_asked_to_draw_for_it(tmp_path: Path) -> None:
    case = CASES[2]
    write(case, tmp_path, metadata={})
    request = Request(prompt="", loras=(LoraRef(name="mine"),), width=64, height=64)
    advice = advise(opened(case, tmp_path), Wanted(request=request, skips=(1, 2)), Library((tmp_path,)))
    assert (advice.rows, advice.verdict.skip, advice.depth) == (0, 2, 24)
