"""What `inspect` tells of a LoRA."""

import hashlib
import json
import time
from pathlib import Path

import pytest
import torch
from lora_tools import CONV, TO_K, TO_OUT, Q, kohya, low_rank, write, write_kohya

from clipskip.spec import Family
from clipskip.weights import FileKind, Library, read_header
from clipskip.weights.lora import LoraReport, inspect_lora, outline_lora
from clipskip.weights.lora.report import text_dead_from
from clipskip.weights.lora.trainer_metadata import plain_line, tag_counts, trained_skip

LAST = "text_encoder.encoder.layers.11.mlp.fc2"
PARTS = low_rank(torch.ones(32, 32), 4) | {"alpha": torch.tensor(2.0)}
OTHER = low_rank(torch.ones(320, 768), 8)


def report(folder: Path, metadata: dict[str, str] | None = None, *names: str) -> LoraReport:
    modules = {name: OTHER if name == TO_K else PARTS for name in names or (Q, LAST, TO_K, TO_OUT, CONV)}
    return inspect_lora(write_kohya(folder / "bog.safetensors", modules, metadata=metadata or {}))


def test_it_lists_ranks_alphas_and_what_is_touched(tmp_path: Path) -> None:
    found = report(tmp_path)
    assert found.ranks == ((4, 4), (8, 1))
    assert set(found.alphas) == {(None, 1), (2.0, 4)}
    assert found.kinds == (("LoRA", 5),)
    assert found.text_layers == (1, 12)
    assert found.unet_blocks == (("down_blocks.0", 1), ("down_blocks.1", 1), ("mid_block", 1))
    assert found.family == "SD 1.x"
    assert not found.warnings


@pytest.mark.parametrize(
    ("layers", "depth", "dead"),
    [([12], 12, 2), ([1, 12], 12, None), ([2], 12, 12), ([7, 12], 12, 7), ([24], 24, 2), ([1], 1, None)],
)
def test_the_clip_skip_from_which_its_layers_are_not_run(layers: list[int], depth: int, dead: int | None) -> None:
    assert text_dead_from(layers, depth=depth) == dead


def test_a_lora_on_the_last_layer_is_told_to_be_dead_from_2(tmp_path: Path) -> None:
    assert "no effect from Clip Skip 2 on" in report(tmp_path, None, LAST).text_note
    assert "has an effect at every Clip Skip" in report(tmp_path, None, Q, LAST).text_note
    assert "no text-encoder part" in report(tmp_path, None, TO_K).text_note


def test_a_lora_on_the_final_norm_acts_at_every_clip_skip(tmp_path: Path) -> None:
    norm = {"w_norm": torch.ones(32), "b_norm": torch.ones(32)}
    file = write_kohya(tmp_path / "n.safetensors", {"text_encoder.final_layer_norm": norm, LAST: PARTS})
    found = inspect_lora(file)
    assert found.text_dead_from is None
    assert found.text_other == ("final_layer_norm",)


@pytest.mark.parametrize(
    ("metadata", "skip", "source"),
    [
        ({"ss_clip_skip": "2"}, 2, "ss_clip_skip"),
        ({"ss_clip_skip": "None"}, 1, "last layer"),
        ({"modelspec.encoder_layer": "2"}, 2, "modelspec.encoder_layer"),
        ({"ss_clip_skip": "two", "modelspec.encoder_layer": "3"}, 3, "modelspec.encoder_layer"),
        ({"ss_clip_skip": "9" * 5000}, None, "does not tell"),
        ({}, None, "does not tell"),
    ],
)
def test_the_trained_clip_skip_and_where_it_is_told(metadata: dict[str, str], skip: int | None, source: str) -> None:
    found = trained_skip(metadata)
    assert found.clip_skip == skip
    assert source in found.source


def test_two_clip_skips_in_one_file_are_a_warning(tmp_path: Path) -> None:
    found = report(tmp_path, {"ss_clip_skip": "2", "modelspec.encoder_layer": "1"})
    assert any("two Clip Skips" in warning for warning in found.warnings)


def test_trigger_words_tags_and_base_model_are_read(tmp_path: Path) -> None:
    frequency = {"10_ogre": {"ogre": 20, "swamp": 12}, "2_bog": {"swamp": 3}}
    found = report(
        tmp_path,
        {
            "ss_tag_frequency": json.dumps(frequency),
            "modelspec.trigger_phrase": "ogre, bog ",
            "ss_base_model_version": "sd_v1",
            "ss_sd_model_name": "starter.safetensors",
            "ss_new_sd_model_hash": "0123456789abcdef",
        },
    )
    assert found.tags == (("ogre", 20), ("swamp", 15))
    assert found.trigger_words == ("ogre", "bog")
    assert found.folders == ("10_ogre", "2_bog")
    assert found.base_model == "sd_v1, starter.safetensors [0123456789]"
    assert dict(found.lines)["Tags"] == "ogre 20, swamp 15"


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "[1]", '{"a": 1}', '{"a": {"b": "c"}}', "9" * 10_000])
def test_nonsense_in_the_tags_is_never_an_error(text: str, tmp_path: Path) -> None:
    assert report(tmp_path, {"ss_tag_frequency": text}).tags == ()


def test_markup_stays_text_and_control_characters_go(tmp_path: Path) -> None:
    found = report(tmp_path, {"ss_output_name": "<script>alert(1)</script>\x1b[31m\nred"})
    assert found.alias == "<script>alert(1)</script> [31m red"
    assert len(plain_line("a" * 10**6)) == 200


def test_the_hash_in_the_metadata_is_checked(tmp_path: Path) -> None:
    tensors = {f"{kohya(Q)}.{end}": value for end, value in PARTS.items()}
    data = write(tmp_path / "a.safetensors", tensors).read_bytes()
    digest = hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()
    right = inspect_lora(write(tmp_path / "b.safetensors", tensors, metadata={"sshs_model_hash": digest}))
    wrong = inspect_lora(write(tmp_path / "c.safetensors", tensors, metadata={"sshs_model_hash": "0" * 64}))
    assert right.hash == digest[:12]
    assert not right.warnings
    assert "sshs_model_hash says 000000000000" in wrong.warnings[0]


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({"ss_network_module": "networks.lora", "ss_network_dim": "32"}, "ss_network_dim says 32"),
        ({"ss_network_module": "networks.lora", "ss_network_alpha": "16"}, "ss_network_alpha says 16"),
        ({"ss_network_module": "networks.oft"}, "the file contains LoRA"),
        ({"ss_network_module": "lycoris.kohya", "ss_network_args": '{"algo": "loha"}'}, "the file contains LoRA"),
        ({"ss_base_model_version": "sdxl_base_v1-0"}, "its weights are SD 1.x's"),
        ({"ss_clip_skip": "77"}, "not a Clip Skip"),
    ],
)
def test_metadata_that_the_content_denies_is_a_warning(metadata: dict[str, str], told: str, tmp_path: Path) -> None:
    assert any(told in warning for warning in report(tmp_path, metadata).warnings)


def test_a_resized_lora_has_no_single_rank_and_no_warning(tmp_path: Path) -> None:
    metadata = {"ss_network_module": "networks.lora", "ss_network_dim": "Dynamic", "ss_network_alpha": "Dynamic"}
    assert not report(tmp_path, metadata).warnings


def test_a_lora_for_another_family_is_reported_on(tmp_path: Path) -> None:
    tensors = {
        f"lora_te{i}_text_model_encoder_layers_0_mlp_fc1.lora_{e}.weight": torch.ones(4, 4)
        for i in (1, 2)
        for e in ("up", "down")
    }
    found = inspect_lora(write(tmp_path / "xl.safetensors", tensors))
    assert found.family == "SDXL"
    assert found.unknown_keys == 0
    assert found.text_layers == (1,)
    assert found.text_2 == ("1",)


def test_a_header_tells_what_the_whole_file_tells() -> None:
    for name in ("ogre", "gnome", "blueprint"):
        path = Library.of_user().find(name, FileKind.LORA)
        outline, report = outline_lora(read_header(path)), inspect_lora(path)
        same = (
            "alias",
            "family",
            "text_layers",
            "trained_clip_skip",
            "trained_clip_skip_source",
            "trigger_words",
            "tags",
        )
        for field in (*same, "warnings"):
            assert getattr(outline, field) == getattr(report, field), field
        assert outline.rank == report.ranks[-1][0]
        assert outline.touches_text and outline.touches_unet


def pony(folder: Path) -> Path:
    """A little of an SDXL LoRA as kohya writes it."""
    tensors = {
        f"lora_te{i}_text_model_encoder_layers_{layer}_self_attn_q_proj.lora_{end}.weight": torch.zeros(size)
        for i, layer, width in ((1, 0, 768), (2, 31, 1280))
        for end, size in (("down", (4, width)), ("up", (width, 4)))
    }
    block = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"
    tensors |= {f"{block}.lora_down.weight": torch.zeros(4, 2048), f"{block}.lora_up.weight": torch.zeros(640, 4)}
    metadata = {"ss_base_model_version": "sdxl_base_v1-0", "ss_clip_skip": "1"}
    return write(folder / "pony.safetensors", tensors, metadata=metadata)


def test_an_sdxl_lora_is_read_as_one(tmp_path: Path) -> None:
    """kohya's SDXL trainer takes the same layers whatever `--clip_skip` was given, and writes the number all the same."""
    found = inspect_lora(pony(tmp_path))
    lines = dict(found.lines)
    assert (found.family, found.trained_clip_skip, found.unknown_keys) == ("SDXL", 2, 0)
    assert "always trained at 2; ss_clip_skip = '1' is not used" in lines["Trained at Clip Skip"]
    assert lines["Text layers"] == "CLIP-L 1 (of 12); OpenCLIP-bigG 32 (of 32)"
    assert not found.warnings
    assert "SD 1.x" not in str(found.lines)
    outline = outline_lora(read_header(tmp_path / "pony.safetensors"))
    assert (outline.family, outline.trained_clip_skip, outline.warnings) == ("SDXL", 2, ())


def test_an_sd2_lora_is_told_of_24_layers(tmp_path: Path) -> None:
    def made(name: str, *layers: int) -> LoraReport:
        tensors = {
            f"lora_te_text_model_encoder_layers_{layer}_self_attn_q_proj.lora_{end}.weight": torch.zeros(size)
            for layer in layers
            for end, size in (("down", (4, 1024)), ("up", (1024, 4)))
        }
        return inspect_lora(write(tmp_path / f"{name}.safetensors", tensors))

    assert "has an effect at every Clip Skip from 1 to 24" in made("all", 0, 22).text_note
    assert "no effect from Clip Skip 3 on" in made("last", 22).text_note


def test_what_changes_sdxls_second_encoder_is_dead_at_no_clip_skip(tmp_path: Path) -> None:
    """The pooled vector is read from bigG's last layer, whatever the Clip Skip."""
    tensors = {
        f"lora_te{i}_text_model_encoder_layers_{layer}_mlp_fc1.lora_{end}.weight": torch.zeros(4, 4)
        for i, layer in ((1, 11), (2, 31))
        for end in ("up", "down")
    }
    assert inspect_lora(write(tmp_path / "xl.safetensors", tensors)).text_dead_from is None


@pytest.mark.parametrize(
    ("family", "metadata", "skip", "told"),
    [
        (Family.SDXL, {}, 2, "always trained at 2"),
        (Family.SDXL, {"modelspec.encoder_layer": "1"}, 2, "modelspec.encoder_layer = '1' is not used"),
        (Family.SD2, {"ss_clip_skip": "None"}, 2, "without the last layer"),
        (Family.SD2, {"ss_clip_skip": "2"}, 3, "without the last layer"),
        (Family.SD2, {}, 2, "unless its trainer says otherwise"),
        (Family.FLUX, {"ss_clip_skip": "2"}, None, "means nothing for Flux"),
        (Family.SD1, {"ss_clip_skip": "2"}, 2, 'ss_clip_skip = "2"'),
    ],
)
def test_the_trained_clip_skip_is_its_familys(
    family: Family, metadata: dict[str, str], skip: int | None, told: str
) -> None:
    found = trained_skip(metadata, family)
    assert found.clip_skip == skip
    assert told in found.source


def test_nothing_is_concluded_while_keys_are_unread(tmp_path: Path) -> None:
    tensors = {f"{kohya(TO_K)}.{end}": value for end, value in OTHER.items()}
    strange = {f"clip_l.strange.{i}.lora_up.weight": torch.ones(4, 4) for i in range(5)}
    found = inspect_lora(write(tmp_path / "odd.safetensors", tensors | strange))
    assert found.unknown_keys == 5
    assert found.text_note.startswith("unknown: 5 of its keys are not known")
    assert dict(found.lines)["Text layers"] == "not known"
    assert any("5 keys name nothing" in warning and "clip_l.strange.0" in warning for warning in found.warnings)


def test_half_a_million_tags_take_no_time(tmp_path: Path) -> None:
    """Reading them as JSON takes 0.3 s; more would be felt in every list of files."""
    frequency = {"10_ogre": {f"tag number {i}": i + 1 for i in range(500_000)}}
    began = time.process_time()
    found = tag_counts({"ss_tag_frequency": json.dumps(frequency)})
    assert time.process_time() - began < 4
    assert found is not None and found.most_common(1) == [("tag number 499999", 500_000)]
