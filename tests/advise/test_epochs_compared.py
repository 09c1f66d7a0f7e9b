"""Epochs of a LoRA on a tiny random model, and the choice between them on numbers that are given."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from clipskip.advise import Answer, Compared, Comparison, Wanted, advise, compare
from clipskip.advise.advice import SCENES
from clipskip.advise.comparison import calling_prompt, compared_rows, everyday
from clipskip.advise.verdict import choose_epoch, no_worse
from clipskip.doors.advice_text import lines
from clipskip.doors.cli import app
from clipskip.doors.epochs_command import split_words, spread
from clipskip.doors.epochs_text import epoch_lines, epoch_picture, plain_epochs
from clipskip.errors import NotFound, SpecError
from clipskip.spec import Dialect, Family, LoraRef, Request
from clipskip.sweep import Model
from clipskip.weights import Library, read_header
from clipskip.weights.lora import load_lora
from clipskip.weights.lora.epochs import order_epochs
from clipskip.weights.trainer import read_trainer_config

TEXT = "lora_te_text_model_encoder_layers_3_self_attn_q_proj"
UNET = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_v"
STRENGTHS = {2: 0.5, 4: 1.0, 6: 2.0}
METADATA = {
    "ss_output_name": "ogre",
    "ss_session_id": "1",
    "ss_clip_skip": "2",
    "modelspec.trigger_phrase": "ogre, swamp (b)",
}


@pytest.fixture(scope="module")
def epochs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ogre-000002, -000004 and ogre (6), each twice as strong as the one before."""
    folder = tmp_path_factory.mktemp("out")
    torch.manual_seed(2)
    down, up = torch.randn(4, 64), torch.randn(64, 4) * 0.02
    for epoch, strength in STRENGTHS.items():
        name = f"ogre-{epoch:06d}" if epoch < 6 else "ogre"
        tensors = {f"{part}.lora_down.weight": down.clone() for part in (TEXT, UNET)}
        tensors |= {f"{TEXT}.lora_up.weight": up * strength, f"{UNET}.lora_up.weight": up[:32] * strength}
        metadata = {**METADATA, "ss_epoch": str(epoch), "ss_steps": str(epoch * 100)}
        save_file(tensors, folder / f"{name}.safetensors", metadata=metadata)
    (folder / "config_lora-20261128-101010.toml").write_text('output_name = "ogre"\nclip_skip = 1\n')
    return folder


def asked(folder: Path, *, prompt: str = "best quality, swamp, ogre") -> Compared:
    headers = [read_header(path) for path in folder.glob("*.safetensors")]
    return Compared(
        request=Request(prompt=prompt, seed=5),
        epochs=order_epochs(headers),
        strength=LoraRef(name="x"),
        skips=(1, 2),
    )


@pytest.fixture(scope="module")
def heard() -> list[tuple[int, int]]:
    return []


@pytest.fixture(scope="module")
def found(model: Model, library: Library, epochs: Path, heard: list[tuple[int, int]]) -> Comparison:
    before = {name: value.clone() for name, value in model.unet.state_dict().items()}
    found = compare(model, asked(epochs), library, tell=lambda rows, most: heard.append((rows, most)))
    assert all(value.equal(before[name]) for name, value in model.unet.state_dict().items()), "the model is put back"
    return found


def test_an_epoch_of_twice_the_weights_adds_twice_as_much(found: Comparison) -> None:
    for column in (0, 1):
        added, besides = ([cells[column] for cells in table] for table in (found.effect, found.besides))
        # a small change of the weights moves the prediction in proportion, to first order and bfloat16's rounding
        assert added[1] / added[0] == pytest.approx(2, rel=0.2)
        assert added[2] / added[1] == pytest.approx(2, rel=0.2)
        assert besides[0] < besides[1] < besides[2]
    own = found.skips.index(found.lora_skip)
    assert found.uptake[2][own] == 1, "the most that any adds at the Clip Skip where it was trained"
    assert found.uptake[0][0] == pytest.approx(found.effect[0][0] / found.effect[2][own], abs=1e-3)


def test_as_many_evaluations_are_made_as_were_announced(found: Comparison, heard: list[tuple[int, int]]) -> None:
    assert heard[-1] == (compared_rows(3, 2, pictures=False),) * 2
    assert found.rows == heard[-1][0]


def test_without_a_prompt_the_lora_s_own_words_call_it(epochs: Path) -> None:
    prompt, source = calling_prompt(load_lora(epochs / "ogre.safetensors"), ())
    assert (prompt, source[:17]) == ("ogre, swamp (b)".replace("(b)", r"\(b\)"), "its trigger words")
    wordless = load_lora(epochs / "ogre.safetensors")
    with pytest.raises(SpecError, match="give a prompt that has them"):
        calling_prompt(replace(wordless, metadata={}), ())


def test_everyday_prompts_share_no_word_with_what_the_lora_was_trained_on(epochs: Path) -> None:
    assert everyday(load_lora(epochs / "ogre.safetensors"), "a brown frog, forest") == (SCENES[2], SCENES[3])


def test_tags_of_other_loras_are_refused(model: Model, library: Library, epochs: Path) -> None:
    with pytest.raises(SpecError, match="epochs are compared alone"):
        compare(model, asked(epochs, prompt="swamp <lora:ogre:1>"), library)


def test_the_configs_beside_it_and_what_to_write_are_said(found: Comparison) -> None:
    told = "\n".join(epoch_lines(found, family=Family.SD1, tool=Dialect.A1111))
    assert "kohya sd-scripts: clip_skip = 2" in told
    assert '"text_encoder_layer_skip": 1' in told
    assert "config_lora-20261128-101010.toml has clip_skip = 1: Clip Skip 1, not 2." in told
    values = json.loads(json.dumps(plain_epochs(found, family=Family.SD1)))
    assert values["to_write"][0]["setting"] == "clip_skip = 2"
    assert values["configs"][0]["clip_skip"] == 1
    assert [epoch["steps"] for epoch in values["epochs"]] == [200, 400, 600]


def test_the_plot_has_a_line_for_each_epoch_in_each_panel(found: Comparison) -> None:
    drawn = epoch_picture(found)
    assert drawn.count("<circle") == 3, "the choice, in each panel"
    assert drawn.count('class="f" d="M') == 3 * 3 + 3, "three panels of three lines, and the legend"
    assert "epoch 4, 400 steps (ogre-000004)" in drawn


LOOKS, COLUMNS = 8, 2
RNG = np.random.default_rng(0)


def cells(means: list[list[float]], noise: float) -> np.ndarray:
    table = np.array(means)
    return table + RNG.normal(0, noise, (LOOKS, *table.shape))


def test_the_epoch_that_stands_out_is_chosen_at_its_clip_skip() -> None:
    called, besides = (
        cells([[0.3, 0.4], [1.0, 1.5], [2.8, 3.1]], 0.01),
        cells([[0.4, 0.4], [0.8, 0.8], [4.0, 4.3]], 0.01),
    )
    choice, chance = choose_epoch(called, besides, None, skips=(1, 2), trained=2)
    assert (choice.answer, choice.epoch, choice.skip) == (Answer.VALUE, 1, 2)
    assert choice.sure == 0.6, "no surer than this without pictures"
    assert chance[1, 1] == 1


def test_differences_within_the_noise_choose_the_earliest_epoch_at_the_trained_clip_skip() -> None:
    called, besides = cells([[1.0, 1.0], [1.0, 1.0]], 0.3), cells([[0.2, 0.2], [0.2, 0.2]], 0.3)
    choice, _ = choose_epoch(called, besides, None, skips=(1, 2), trained=2)
    assert (choice.answer, choice.epoch, choice.skip) == (Answer.NO_DIFFERENCE, 0, 2)
    assert len(choice.alike) == 4


def test_a_lora_that_acts_on_every_prompt_alike_is_not_judged_without_pictures() -> None:
    called, besides = cells([[0.5, 0.5], [1.0, 1.0]], 0.01), cells([[0.6, 0.6], [1.1, 1.2]], 0.01)
    choice, _ = choose_epoch(called, besides, None, skips=(1, 2), trained=2)
    assert choice.answer is Answer.NOT_KNOWN


def test_pictures_decide_where_they_are_given() -> None:
    called, besides = cells([[0.5, 0.5], [1.0, 1.0]], 0.01), cells([[0.6, 0.6], [1.1, 1.2]], 0.01)
    choice, _ = choose_epoch(called, besides, cells([[-0.1, -0.3], [-0.1, -0.1]], 0.01), skips=(1, 2), trained=1)
    assert (choice.answer, choice.epoch, choice.skip) == (Answer.VALUE, 0, 2)
    assert choice.sure > 0.9


def test_the_chance_of_being_no_worse_is_that_of_a_paired_normal_mean() -> None:
    """100 paired differences of mean 0.1 and spread 1: their mean is above 0 with probability 0.84 (one standard error)."""
    differences = np.random.default_rng(3).normal(size=100)
    differences = (differences - differences.mean()) / differences.std() + 0.1
    losses = np.stack([np.zeros(100), differences], axis=1)
    assert no_worse(losses, 0)[1] == pytest.approx(0.16, abs=0.02)


def test_a_shell_s_pattern_a_quoted_one_and_a_folder_are_the_same(epochs: Path) -> None:
    files = sorted(str(path) for path in epochs.glob("*.safetensors"))
    assert spread([f"{epochs}/ogre*.safetensors"], [], allow_pickle=False) == (files, True)
    assert spread([f"{epochs}:0.8"], [], allow_pickle=False) == ([f"{file}:0.8" for file in files], True)
    prompt, further = split_words(["swamp, ogre", *files[1:]])
    assert prompt == "swamp, ogre"
    assert sorted(spread(files[:1], further, allow_pickle=False)[0]) == files
    with pytest.raises(NotFound, match="no LoRA file was found"):
        spread([f"{epochs}/gnome*"], [], allow_pickle=False)
    with pytest.raises(SpecError, match="2 prompts"):
        split_words(["swamp", "ogre"])


def test_the_command_compares_a_folder_and_draws_it(folder: Path, epochs: Path, tmp_path: Path) -> None:
    words = [
        "advise",
        "swamp, ogre",
        "--lora",
        str(epochs),
        "--model",
        str(folder / "tiny.safetensors"),
        "--clip-skip",
        "2",
    ]
    ran = CliRunner().invoke(app, [*words, "--for", "diffusers", "--out", str(tmp_path / "plot.svg")])
    assert ran.exit_code == 0, ran.output
    assert "at Clip Skip 1 in diffusers" in ran.stdout.splitlines()[0]
    assert (tmp_path / "plot.svg").read_text().startswith("<svg")


def test_a_given_config_counts_as_evidence_of_one_lora_and_is_told_what_to_write(
    model: Model, library: Library, tmp_path: Path
) -> None:
    path = tmp_path / "kohya.toml"
    path.write_text('[training]\noutput_name = "ogre"\nclip_skip = 3\n')
    request = Request(prompt="swamp, ogre", loras=(LoraRef(name="ogre"),), seed=5)
    wanted = Wanted(request=request, skips=(1, 2), config=read_trainer_config(path))
    advice = advise(model, wanted, library)
    assert "kohya sd-scripts's config kohya.toml: clip_skip = 3" in [one.source for one in advice.evidence]
    assert any("says 2" in one and "says 3" in one for one in advice.contradictions)
    told = list(lines(advice, family=Family.SD1, tool=Dialect.A1111))
    assert "  kohya sd-scripts: clip_skip = 2 (--clip_skip 2 on the command line)" in told
    assert "  kohya.toml has clip_skip = 3: Clip Skip 3, not 2." in told
