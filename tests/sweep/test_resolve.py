"""Names in a request become the files that are meant, and no others."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_sd1 import WIDTH

from clipskip.errors import SpecError, UnsafeFile
from clipskip.spec import LoraRef, Request, Start
from clipskip.sweep import Model, warnings_of
from clipskip.sweep.resolve import resolve
from clipskip.weights import Library


@pytest.fixture
def words(tmp_path: Path) -> Library:
    """Embeddings `bad`, and `cat`, a pickle that nobody allowed."""
    (tmp_path / "embeddings").mkdir()
    save_file({"emb_params": torch.ones(2, WIDTH)}, tmp_path / "embeddings" / "bad.safetensors")
    torch.save({"string_to_param": {"*": torch.ones(1, WIDTH)}}, tmp_path / "embeddings" / "cat.pt")
    return Library((tmp_path,))


def test_an_embedding_whose_name_is_only_part_of_a_word_is_not_called(model: Model, words: Library) -> None:
    render, extras = resolve(Request(prompt="a badge, a category", width=64, height=64), model.facts, words)
    assert (render.embeddings, extras.embeddings) == ((), ())


def test_embeddings_are_called_in_either_prompt(model: Model, words: Library) -> None:
    render, extras = resolve(
        Request(prompt="a badge", negative_prompt="(BAD:1.2)", width=64, height=64), model.facts, words
    )
    assert [one.name for one in render.embeddings] == ["bad"]
    assert extras.embeddings[0].vectors[0].shape == (2, WIDTH)


def test_a_pickled_embedding_that_is_called_needs_the_switch(model: Model, words: Library) -> None:
    with pytest.raises(UnsafeFile, match="--allow-pickle"):
        resolve(Request(prompt="a cat", width=64, height=64), model.facts, words)
    render, _ = resolve(Request(prompt="a cat", width=64, height=64), model.facts, words, allow_pickle=True)
    assert [one.name for one in render.embeddings] == ["cat"]


def test_a_pickled_lora_needs_the_switch(model: Model, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "loras").mkdir()
    torch.save(load_file(folder / "loras" / "ogre.safetensors"), tmp_path / "loras" / "old.pt")
    with pytest.raises(UnsafeFile, match="--allow-pickle"):
        resolve(Request(prompt="a <lora:old:1>", width=64, height=64), model.facts, Library((tmp_path,)))
    render, _ = resolve(
        Request(prompt="a <lora:old:1>", width=64, height=64), model.facts, Library((tmp_path,)), allow_pickle=True
    )
    assert [one.name for one in render.loras] == ["old"]


def test_a_lora_of_a_tag_and_one_beside_the_prompt_are_both_applied_in_order(model: Model, library: Library) -> None:
    # A tag and --lora are two LoRAs, each at its own strength; two tags of one name share the last one's, as in A1111.
    request = Request(
        prompt="a <lora:ogre:1><lora:ogre:0.5>",
        loras=(LoraRef(name="ogre", text_encoder=-0.25, unet=-0.25),),
        width=64,
        height=64,
    )
    render, _ = resolve(request, model.facts, library)
    assert [one.text_encoder for one in render.loras] == [0.5, 0.5, -0.25]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"sampler": "DDIM", "scheduler": "normal"}, "schedule type normal changes nothing: DDIM visits"),
        ({"sampler": "Euler", "eta": 0.0}, "eta 0 changes nothing: Euler has none"),
        ({"sampler": "Euler a", "s_churn": 3.0}, "sigma churn 3 changes nothing: Euler a has none"),
        ({"sampler": "Euler a", "s_noise": 1.1}, "sigma noise 1.1 changes nothing: Euler a"),
        ({"sampler": "Euler", "s_noise": 1.1}, "sigma noise 1.1 changes nothing: Euler"),
    ],
)
def test_a_setting_that_the_sampler_does_not_take_is_said(
    model: Model, words: str, asked: dict[str, Any], tmp_path: Path
) -> None:
    request = Request(prompt="a cat", width=64, height=64, seed=5, **asked)
    render, extras = resolve(request, model.facts, Library((tmp_path,)))
    plain, _ = resolve(
        replace(request, eta=None, s_churn=0.0, s_noise=1.0, scheduler="Automatic"), model.facts, Library(())
    )
    assert render == plain
    assert any(words in line for line in warnings_of(request, extras))


def test_the_samplers_own_eta_is_no_setting_and_another_is(model: Model) -> None:
    def eta(sampler: str, asked: float) -> float | None:
        request = Request(prompt="a cat", width=64, height=64, sampler=sampler, eta=asked)
        return resolve(request, model.facts, Library(()))[0].eta

    assert (eta("Euler a", 1.0), eta("DDIM", 0.0)) == (None, None)
    assert (eta("Euler a", 0.0), eta("DDIM", 1.0)) == (0.0, 1.0)


def test_a_picture_to_begin_at_that_is_not_there_is_an_error_with_its_hash(model: Model) -> None:
    request = Request(prompt="a cat", width=64, height=64, start=Start(hash="ab" * 16))
    with pytest.raises(SpecError, match=r"abababababab.*--init"):
        resolve(request, model.facts, Library(()))
