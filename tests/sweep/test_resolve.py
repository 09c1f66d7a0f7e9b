"""Names in a request become the files that are meant, and no others."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_sd1 import WIDTH

from clipskip.errors import UnsafeFile
from clipskip.spec import LoraRef, Request
from clipskip.sweep import Model
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
