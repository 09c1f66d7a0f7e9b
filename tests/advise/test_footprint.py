from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from clipskip.advise.advice import SCENES
from clipskip.advise.trained import by_difference, by_footprint
from clipskip.encode import TextReader, encode_layers, open_text_encoder
from clipskip.errors import WrongKind
from clipskip.spec import ClipSkip
from clipskip.sweep import find_model
from clipskip.weights import Library, load_checkpoint, save_single_file
from clipskip.weights.lora import load_lora

PLACES = (
    "down_blocks_0_attentions_0",
    "mid_block_attentions_0",
    "up_blocks_1_attentions_0",
    "up_blocks_1_attentions_1",
)


@pytest.fixture(scope="module")
def reader() -> TextReader:
    """The starter's: layers of a random encoder hardly differ."""
    return open_text_encoder(find_model(None, hash=None, library=Library.of_user()))


def lora_trained_at(skip: int, reader: TextReader, folder: Path, places: tuple[str, ...] = PLACES) -> Path:
    """down = its random start plus what gradients leave: random mixtures of the inputs at one Clip Skip."""
    generator = torch.Generator().manual_seed(skip)
    layer = ClipSkip(skip)
    inputs = torch.cat([encode_layers(reader, text, [layer])[layer][1:12] for text in SCENES])
    tensors = {}
    for place in places:
        for kind in ("to_k", "to_v"):
            name = f"lora_unet_{place}_transformer_blocks_0_attn2_{kind}"
            mixture = torch.randn(4, len(inputs), generator=generator) @ inputs / len(inputs)
            tensors[f"{name}.lora_down.weight"] = 0.05 * torch.randn(4, 128, generator=generator) + mixture
            tensors[f"{name}.lora_up.weight"] = torch.randn(128, 4, generator=generator)
            tensors[f"{name}.alpha"] = torch.tensor(4.0)
    path = folder / f"at{skip}.safetensors"
    save_file(tensors, path)
    return path


@pytest.mark.parametrize("skip", [1, 3, 5])
def test_the_clip_skip_whose_inputs_moved_the_weights_is_found(skip: int, reader: TextReader, tmp_path: Path) -> None:
    found = by_footprint(load_lora(lora_trained_at(skip, reader, tmp_path)), reader, SCENES, skips=(1, 2, 3, 4, 5, 6))
    assert found is not None
    assert (found.skip, found.rows) == (skip, 0)


def test_a_lora_with_too_few_places_that_see_the_text_says_nothing(reader: TextReader, tmp_path: Path) -> None:
    lora = load_lora(lora_trained_at(2, reader, tmp_path, PLACES[:1]))
    assert by_footprint(lora, reader, SCENES, skips=(1, 2)) is None


def test_the_clip_skip_of_a_fine_tune_is_found_in_what_changed_since_its_base(
    reader: TextReader, tmp_path: Path
) -> None:
    base, layer = find_model(None, hash=None, library=Library.of_user()), ClipSkip(4)
    inputs = torch.cat([encode_layers(reader, text, [layer])[layer][1:12] for text in SCENES])
    tuned, generator = load_checkpoint(base, dtype=torch.float16), torch.Generator().manual_seed(0)
    for name, weight in tuned.unet.items():
        if "attn2.to_k" in name or "attn2.to_v" in name:
            mixture = torch.randn(len(weight), len(inputs), generator=generator) @ inputs / len(inputs)
            weight += (0.01 * torch.randn(weight.shape, generator=generator) + 0.3 * mixture).half()
    save_single_file(tuned, tmp_path / "tuned.safetensors")
    found = by_difference(tmp_path / "tuned.safetensors", base, reader, SCENES, skips=(1, 2, 3, 4, 5, 6))
    assert (found.skip, found.rows) == (4, 0)


def test_a_model_that_is_its_own_base_has_no_training_in_between(reader: TextReader) -> None:
    base = find_model(None, hash=None, library=Library.of_user())
    with pytest.raises(WrongKind, match="nothing was trained between them"):
        by_difference(base, base, reader, SCENES, skips=(1, 2))
