"""Files that are not what they seem, and what is wrong with them."""

import hashlib
from pathlib import Path

import pytest
import torch
from lora_tools import TO_K, Q, kohya, low_rank, write, write_kohya
from torch import Tensor

from clipskip.errors import DamagedFile, FileError, LoraError, NotFound, UnsafeFile, WrongKind
from clipskip.spec import Family
from clipskip.weights.lora import load_lora

GOOD = low_rank(torch.ones(32, 32), 4)


def without(*ends: str) -> dict[str, Tensor]:
    return {end: value for end, value in GOOD.items() if end not in ends}


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        (without("lora_up.weight"), r"lacks lora_up.*lora_down\.weight"),
        (without("lora_down.weight"), r"lacks lora_down.*lora_up\.weight"),
        ({"alpha": torch.tensor(1.0)}, "has no weights"),
        (GOOD | {"hada_w1_a": torch.ones(32, 4)}, "mixes LoRA and LoHa"),
        ({"hada_w1_a": torch.ones(32, 4), "hada_w1_b": torch.ones(4, 32)}, "lacks hada_w2_a and hada_w2_b"),
        ({"lokr_w1": torch.ones(4, 4), "lokr_w2_a": torch.ones(8, 2)}, "lacks"),
        (
            {"lora_up.weight": torch.ones(32, 0), "lora_down.weight": torch.ones(0, 32)},
            r"lora_(up|down)\.weight.*rank 0",
        ),
        (GOOD | {"lora_up.weight": torch.full((32, 4), torch.nan)}, r"lora_up\.weight.*NaN or infinity"),
        (GOOD | {"lora_down.weight": torch.full((4, 32), torch.inf)}, r"lora_down\.weight.*NaN or infinity"),
        (GOOD | {"alpha": torch.tensor(torch.nan)}, "alpha.*NaN or infinity"),
        (GOOD | {"alpha": torch.ones(2)}, "alpha.*2 numbers"),
        (GOOD | {"lora_up.weight": torch.ones(32, 4, dtype=torch.int8)}, "int8"),
    ],
)
def test_broken_parts_are_named(parts: dict[str, Tensor], told: str, tmp_path: Path) -> None:
    with pytest.raises(LoraError, match=told) as error:
        load_lora(write_kohya(tmp_path / "broken.safetensors", {Q: parts}))
    assert "broken.safetensors" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", [(), (4,)])
def test_parts_without_a_rank_are_refused_and_noted(shape: tuple[int, ...], tmp_path: Path) -> None:
    parts = {"lora_up.weight": torch.ones(shape), "lora_down.weight": torch.ones(shape)}
    file = write_kohya(tmp_path / "flat.safetensors", {Q: parts})
    with pytest.raises(LoraError, match=r"flat\.safetensors: the parts of .* have no rank"):
        load_lora(file, family=Family.SD1)
    assert "cannot be used" in load_lora(file, family=None).warnings[0]


def test_the_same_weights_named_twice_are_refused(tmp_path: Path) -> None:
    flat = {f"{kohya(Q).replace('text_model_', '')}.{end}": value for end, value in GOOD.items()}
    full = {f"{kohya(Q)}.{end}": value for end, value in GOOD.items()}
    with pytest.raises(LoraError, match="twice"):
        load_lora(write(tmp_path / "twice.safetensors", flat | full))


@pytest.mark.parametrize(("alpha", "told"), [(0.0, "is 0 in 1 modules"), (-4.0, "negative in 1 modules")])
def test_an_odd_alpha_is_applied_and_told(alpha: float, told: str, tmp_path: Path) -> None:
    lora = load_lora(write_kohya(tmp_path / "odd.safetensors", {Q: GOOD | {"alpha": torch.tensor(alpha)}}))
    assert lora.modules[Q].scale == alpha / 4
    assert told in lora.warnings[0]


def test_modules_may_be_of_different_kinds(tmp_path: Path) -> None:
    hada = {f"hada_w{i}_{x}": torch.ones(32, 4) if x == "a" else torch.ones(4, 32) for i in (1, 2) for x in "ab"}
    lora = load_lora(write_kohya(tmp_path / "mixed.safetensors", {Q: GOOD, TO_K: hada}))
    assert [module.kind.name for module in lora.modules.values()] == ["LoRA", "LoHa"] or len(lora.modules) == 2


@pytest.mark.parametrize(
    "key",
    ["model.diffusion_model.out.2.weight", "first_stage_model.decoder.conv_in.weight", "emb_params", "anything"],
)
def test_another_kind_of_model_is_not_a_lora(key: str, tmp_path: Path) -> None:
    with pytest.raises(WrongKind, match="not a LoRA"):
        load_lora(write(tmp_path / "model.safetensors", {key: torch.ones(4, 4)}))


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><p>", b"version https://git-lfs.github.com/spec/v1\noid"])
def test_a_file_that_is_no_model_is_damaged(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(DamagedFile):
        load_lora(tmp_path / "x.safetensors")


def test_a_missing_file_and_a_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        load_lora(tmp_path / "none.safetensors")
    with pytest.raises(FileError):
        load_lora(tmp_path)


def test_the_hash_is_of_the_data_alone(tmp_path: Path) -> None:
    one = load_lora(write_kohya(tmp_path / "a.safetensors", {Q: GOOD}))
    two = load_lora(write_kohya(tmp_path / "b.safetensors", {Q: GOOD}, metadata={"ss_output_name": "bog"}))
    assert one.hash == two.hash
    assert len(one.hash) == 12
    assert (one.alias, two.alias) == ("a", "bog")


class Evil:
    """Unpickled in full it would write a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return open, (str(self.marker), "w")


def test_a_pickled_lora_is_refused_without_the_switch(tmp_path: Path) -> None:
    torch.save({f"{kohya(Q)}.{end}": value for end, value in GOOD.items()}, tmp_path / "old.pt")
    with pytest.raises(UnsafeFile, match="--allow-pickle"):
        load_lora(tmp_path / "old.pt")


def test_a_pickled_lora_is_the_same_lora_under_the_hash_of_its_file(tmp_path: Path) -> None:
    torch.save({f"{kohya(Q)}.{end}": value for end, value in GOOD.items()}, tmp_path / "old.pt")
    pickled = load_lora(tmp_path / "old.pt", allow_pickle=True)
    plain = load_lora(write_kohya(tmp_path / "new.safetensors", {Q: GOOD}), allow_pickle=True)
    assert pickled.hash == hashlib.sha256((tmp_path / "old.pt").read_bytes()).hexdigest()[:12]
    assert (pickled.modules[Q].scale, pickled.modules[Q].kind) == (plain.modules[Q].scale, plain.modules[Q].kind)
    for part, value in plain.modules[Q].parts.items():
        assert torch.equal(pickled.modules[Q].parts[part], value)


def test_a_pickled_lora_with_code_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    torch.save({"a.lora_up.weight": Evil(tmp_path / "marker")}, tmp_path / "evil.pt")
    with pytest.raises(UnsafeFile, match=r"asks for io\.open, not only for tensors; it was not run"):
        load_lora(tmp_path / "evil.pt", allow_pickle=True)
    assert not (tmp_path / "marker").exists()


def test_factors_of_different_ranks_are_an_error_and_told_by_inspect(tmp_path: Path) -> None:
    parts = {"lora_up.weight": torch.ones(32, 4), "lora_down.weight": torch.ones(8, 32)}
    file = write_kohya(tmp_path / "uneven.safetensors", {Q: parts, TO_K: GOOD})
    with pytest.raises(
        LoraError, match=r"uneven\.safetensors: the parts of 'text_encoder.*q_proj' have no rank or different ranks"
    ):
        load_lora(file)
    assert "different ranks, so it cannot be used" in load_lora(file, family=None).warnings[0]
