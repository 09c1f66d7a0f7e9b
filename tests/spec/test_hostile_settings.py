"""Settings by strangers and by broken programs: each is a request, or an error of ours in one line, and quickly."""

import time

import pytest

from clipskip.errors import ClipskipError, SpecError
from clipskip.spec import ClipSkip
from clipskip.spec.settings import request_from_text

LINE = "a\nSteps: 2, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 64x64"
READ = [
    f"{LINE}, Clip skip: 2\x1d", f"{LINE}, Clip skip: \u00a02", LINE.replace("\n", "\r\n"), LINE.replace("\n", "\r"),
    LINE.replace("Euler a", "\x07\x07"), f"{LINE}, Model: \u202egpj.exe", f"{LINE}, Model: a\x9b31m", f"{LINE}, Model: \x1b[31mred",
    f"{LINE}, VAE: ../../../etc/passwd", f"{LINE}, Model: |cat /etc/passwd", f'{LINE}, Lora hashes: ""', "Steps: 2",
    '{"extraMetadata": "{\\"prompt\\": \\"a\\", \\"resources\\": {}}", "1": {"class_type": "X"}}',
    '{"prompt": "a", "cfgScale": 7, "modules": [1, [2]]}', '{"prompt": "\\ud800", "seed": 1}',
    "a\n-b\nSteps: 2, Guidance Scale: 2, Seed Mode: y, LoRA Model: a", "Include in Image: a; Generator: x; ;;; : ;",
]  # fmt: skip
REFUSED = [
    f"{LINE}, Sampler: \x07\x07",
    f"{LINE}, Clip skip: \u0662", f"{LINE}, Clip skip: \uff12", f"{LINE}, Clip skip: 1e0", f"{LINE}, Clip skip: inf",
    LINE.replace("64x64", "99999999999x64"), LINE.replace("64x64", "\u0666\u0664x64"), LINE.replace("5", "9" * 5000),
    LINE.replace("7", "nan"), LINE.replace("Steps: 2", "Steps: -2"), LINE.replace("Steps: 2", "Steps: \uff12"),
    f'{LINE}, Hashes: {{"model": 5, "lora:x": []}}', f"{LINE}, Model: {'x' * 500_000}", '{"prompt": "a", "clip_skip": {}}',
    f"{LINE}, Module 1: {'clip_l ' * 9999}", '{"prompt": ["a"], "seed": 1}', '{"prompt": "a", "width": true, "height": 64}',
    '{"prompt": "a", "seed": 1e400}', '{"prompt": "a", "steps": NaN, "seed": 1}', '{"prompt": "a", "loras": [[["x"]]]}',
    '{"c": "a", "uc": {}, "size": "64x64"}', '{"Prompt": "a", "software": "RuinedFooocus", "loras": {"a": 1}}',
    '{"Prompt": "a", "software": "RuinedFooocus", "loras": "Loras:<a:x>"}', '{"sui_image_params": 5}',
    '{"sui_image_params": {"prompt": "a", "loras": ["a"], "loraweights": ["x"], "swarm_version": "1"}}',
    '{"extraMetadata": "{}", "1": {"class_type": "X"}}', '{"Comment": "{\\"uc\\": 5}", "Software": "NovelAI"}',
    '{"prompt": "a", "cfg_scale": 7, "override_settings": {"forge_additional_modules": [{}]}}',
    '{"prompt": "a", "refiner_model": [], "base_model": "x", "guidance_scale": 1}',
    '{"prompt": "a", "base_model": "x", "guidance_scale": 1, "refiner_model": "r", "switch": "x", "steps": 0}',
    '{"prompt": "a", "l1": {}, "w1": [], "base_clip_skip": {}}', "a\n-b\nSteps: 2, Guidance Scale: x, Seed Mode: y, Refiner Start: %",
    '{"1": {"class_type": "KSampler", "inputs": {"positive": ["1", 0], "negative": ["1", 0], "sampler_name": "x"}}}',
    '{"1": {"class_type": {}, "inputs": []}}', '{"1": {"class_type": "KSampler", "inputs": {"positive": 1, "negative": 2}}}',
    '{"sui_image_params": {"prompt": "a", "swarm_version": "1", "refinermodel": ["x"], "refinercontrolpercentage": {}}}',
    '{"positive_prompt": "a+' + "+" * 99_999 + '", "seed": 1}', '{"positive_prompt": "' + "(" * 99_999 + '", "seed": 1}',
    '{"prompt": "' + "{" * 99_999 + '", "uc": "", "seed": 1}', '{"c": "a", "lora": [{"weight": 1}]}', "", "\0",
    '{"1": {"class_type": "KSamplerAdvanced", "inputs": {"positive": ["2", 0], "negative": ["2", 0], "model": ["3", 0], '
    '"sampler_name": "euler", "steps": "x", "end_at_step": [1], "latent_image": ["9", 0]}}}',
]  # fmt: skip


@pytest.mark.parametrize("text", READ)
def test_odd_settings_are_read(text: str) -> None:
    asked = request_from_text(text)
    assert asked.model is None or "/" not in asked.model
    assert asked.vae is None or "/" not in asked.vae
    if "Clip skip" in text:
        assert asked.clip_skip == ClipSkip(2)
    if text.startswith("a\r"):
        assert (asked.prompt, asked.seed, asked.width) == ("a", 5, 64)


@pytest.mark.parametrize("text", REFUSED)
def test_settings_that_say_nothing_sound_are_refused_in_one_line(text: str) -> None:
    started = time.process_time()
    with pytest.raises(ClipskipError) as caught:
        request_from_text(text)
    told = str(caught.value)
    assert "\n" not in told and len(told) < 700 and getattr(caught.value, "field", None)
    assert time.process_time() - started < 4  # what is not linear takes minutes


@pytest.mark.parametrize(
    "field",
    [
        "Denoising strength: 0.5, Hires upscale: 2, Hires upscaler: /etc/passwd", "ComfyUI LoRAs: /etc/passwd:1",
        "Refiner: /etc/passwd", "Model: /etc/passwd", "VAE: /etc/passwd.pt", "Module 1: /etc/passwd",
        "AddNet Model 1: /etc/passwd(0123), AddNet Module 1: LoRA", "Model: m, Model hash: /etc/passwd",
        "VAE: v, VAE hash: ~/passwd", "Denoising strength: 0.5, Hires upscale: 2, Hires upscaler hash: /etc/passwd",
        'Model: m, Hashes: {"model": "../etc/passwd"}',
    ],
)  # fmt: skip
def test_no_file_of_a_settings_text_is_a_path(field: str) -> None:
    """What is typed as an option may be a path; what stands in a text that somebody sent is a name to look up."""
    asked = request_from_text(f"a fox\nSteps: 2, Seed: 1, Size: 64x64, {field}")
    names = [asked.model, asked.vae, asked.refiner, asked.model_hash, asked.vae_hash, asked.refiner_hash]
    names += [lora.name for lora in asked.loras]
    names += [asked.hires.upscaler, asked.hires.upscaler_hash] if asked.hires else []
    assert not [name for name in names if name and set(name) & set("/\\~")]


@pytest.mark.parametrize("field", ["Model hash: /etc/passwd", "VAE hash: ../x", 'Hashes: {"model": "/etc/passwd"}'])
def test_a_hash_that_is_none_and_names_the_file_alone_is_refused(field: str) -> None:
    with pytest.raises(SpecError, match="is not a hash"):
        request_from_text(f"a fox\nSteps: 2, Seed: 1, Size: 64x64, {field}")


def test_a_lora_that_only_a_list_of_hashes_names_is_told_of() -> None:
    text = 'a <lora:ogre:1> fox\nSteps: 2, Seed: 1, Size: 64x64, Lora hashes: "ogre: 0123456789ab, gnome: 0123456789ac"'
    assert [name for name, _ in request_from_text(text).unused] == [
        "hash of the LoRA gnome, which the prompt has no tag of"
    ]
    hires = ', Denoising strength: 0.5, Hires upscale: 2, Hires prompt: "a <lora:gnome:0.5> fox"'
    assert request_from_text(text + hires).unused == ()
