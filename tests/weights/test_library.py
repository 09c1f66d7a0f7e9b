"""A name finds one file of the user's folders, however they are laid out, and never one outside them."""

import os
import time
import unicodedata
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from clipskip.errors import NotFound
from clipskip.weights.hashes import hash_file
from clipskip.weights.identify import FileKind
from clipskip.weights.library import STARTER, Library, fold

CHECKPOINT, LORA, EMBEDDING = FileKind.CHECKPOINT, FileKind.LORA, FileKind.EMBEDDING


def put(path: Path, kind: FileKind = CHECKPOINT, **metadata: str) -> Path:
    """A small file that is of this kind by its header, and differs from all others."""
    names = {
        CHECKPOINT: [f"{part}.{i}" for part in ("model.diffusion_model", "first_stage_model") for i in range(5)],
        LORA: ["lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight"],
        EMBEDDING: ["emb_params"],
    }
    names[CHECKPOINT] = [f"model.diffusion_model.down_blocks.0.{i}" for i in range(5)]
    names[CHECKPOINT] += [f"first_stage_model.encoder.down_blocks.{i}" for i in range(5)]
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: torch.randn(4) for name in names[kind]}, path, metadata=metadata or None)
    return path


def refusal(library: Library, name: str, kind: FileKind = CHECKPOINT, *, allow_path: bool = True) -> str:
    with pytest.raises(NotFound) as caught:
        library.find(name, kind, allow_path=allow_path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("checkpoints", "loras", "embeddings"),
    [
        ("models/Stable-diffusion", "models/Lora", "embeddings"),
        ("models/checkpoints", "models/loras", "models/embeddings"),
        ("checkpoints", "loras", "embeddings"),
        (".", ".", "."),
    ],
)
def test_every_layout_is_searched_by_kind(tmp_path: Path, checkpoints: str, loras: str, embeddings: str) -> None:
    model = put(tmp_path / checkpoints / "sub" / "anything-v4.0-pruned.safetensors")
    lora = put(tmp_path / loras / "shrek.safetensors", LORA)
    swamp = put(tmp_path / embeddings / "swamp.safetensors", EMBEDDING)
    library = Library((tmp_path,))
    for name in (
        "anything-v4.0-pruned",
        "anything-v4.0-pruned.safetensors",
        "sub/anything-v4.0-pruned.safetensors",
        "sub/anything-v4.0-pruned",
        "sub\\anything-v4.0-pruned.safetensors [69528490df]",
        "Anything-V4.0-Pruned",
        "anything-v4.0-pruned.safetensors [69528490df]",
    ):
        assert library.find(name, CHECKPOINT) == model
    assert library.find("shrek", LORA) == lora and library.find("swamp", EMBEDDING) == swamp
    assert [[f.path for f in library.files(k)] for k in (CHECKPOINT, LORA, EMBEDDING)] == [[model], [lora], [swamp]]


def test_a_model_beside_the_sorted_folders_is_found_too(tmp_path: Path) -> None:
    put(tmp_path / "loras" / "shrek.safetensors", LORA)
    model = put(tmp_path / "model.safetensors")
    assert Library((tmp_path,)).find("model", CHECKPOINT) == model
    assert [found.path for found in Library((tmp_path,)).files(CHECKPOINT)] == [model]


def test_the_exact_spelling_wins_over_another_case_and_the_first_folder_over_the_next(tmp_path: Path) -> None:
    put(tmp_path / "a" / "MODEL.safetensors")
    exact = put(tmp_path / "b" / "model.safetensors")
    put(tmp_path / "c" / "model.safetensors")
    assert Library((tmp_path / "a", tmp_path / "b", tmp_path / "c")).find("model", CHECKPOINT) == exact


def test_names_that_differ_only_by_case_must_be_written_in_full(tmp_path: Path) -> None:
    upper, lower = put(tmp_path / "Model.safetensors"), put(tmp_path / "model.safetensors")
    library = Library((tmp_path,))
    assert (library.find("Model", CHECKPOINT), library.find("model", CHECKPOINT)) == (upper, lower)
    assert "could be any of Model.safetensors, model.safetensors" in refusal(library, "MODEL")


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKD"])
def test_unicode_forms_of_a_name_are_one_name(tmp_path: Path, form: str) -> None:
    model = put(tmp_path / unicodedata.normalize("NFD", "Café-Ünïcode.safetensors"))
    assert Library((tmp_path,)).find(unicodedata.normalize(form, "café-ÜNÏCODE"), CHECKPOINT) == model
    assert fold("ÉCLAIR") == fold(unicodedata.normalize("NFD", "éclair"))


def test_safetensors_go_before_pickles_and_the_kind_before_others(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").write_bytes(b"\x80\x02}." + bytes(6_000_000))
    (tmp_path / "swamp.pt").write_bytes(b"\x80\x02}.")
    assert Library((tmp_path,)).find("model", CHECKPOINT).suffix == ".ckpt"
    assert [[f.stem for f in Library((tmp_path,)).files(k)] for k in (CHECKPOINT, EMBEDDING)] == [["model"], ["swamp"]]
    model = put(tmp_path / "model.safetensors")
    put(tmp_path / "loras-of-mine" / "model.safetensors", LORA)
    assert Library((tmp_path,)).find("model", CHECKPOINT) == model


def test_a_lora_is_found_by_its_trainers_name(tmp_path: Path) -> None:
    lora = put(tmp_path / "v1-000008.safetensors", LORA, ss_output_name="BogOgre")
    library = Library((tmp_path,))
    assert library.find("bogogre", LORA) == lora
    assert "no model called 'bogogre'" in refusal(library, "bogogre")


def test_a_trainers_name_that_several_loras_have_must_be_written_as_a_file(tmp_path: Path) -> None:
    epochs = [put(tmp_path / "a" / f"ogre-0000{n}.safetensors", LORA, ss_output_name="last") for n in (2, 4)]
    put(tmp_path / "b" / "gnome.safetensors", LORA, ss_output_name="last")
    library = Library((tmp_path / "a", tmp_path / "b"))
    assert "'last' could be any of ogre-00002.safetensors, ogre-00004.safetensors" in refusal(library, "last", LORA)
    assert library.find("ogre-00004", LORA) == epochs[1]
    assert Library((tmp_path / "b", tmp_path / "a")).find("last", LORA).name == "gnome.safetensors"


def test_a_hash_finds_its_file_and_the_smallest_are_hashed_first(tmp_path: Path) -> None:
    files = [put(tmp_path / f"{name}.safetensors") for name in "ab"]
    save_file(load_file(files[0]) | {"betas": torch.zeros(1000)}, files[0])
    library, seen = Library((tmp_path,)), []
    digits = hash_file(files[1], cache=tmp_path / "other.sqlite")
    for wanted in (digits.autov2, digits.sha256.upper(), digits.autov3):
        found = library.find(wanted, CHECKPOINT, progress=lambda name, done, size: seen.append(name))
        assert found == files[1]
    assert seen == ["b.safetensors"]
    assert library.find_hash("0" * 10, CHECKPOINT) is None
    first = hash_file(files[0], cache=tmp_path / "other.sqlite").autov2
    for path in files:
        path.touch()
    seen.clear()
    assert library.find_hash(first, CHECKPOINT, likely="A", progress=lambda name, *_: seen.append(name)) == files[0]
    assert seen == ["a.safetensors"]
    assert library.find_hash(hash_file(files[0]).autov1, CHECKPOINT) is not None


@pytest.mark.parametrize(
    "name", ["../secret", "../secret.safetensors", "sub/../../secret.safetensors", "link", "out/secret"]
)
def test_no_name_leads_out_of_the_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    secret = put(tmp_path / "secret.safetensors")
    folder = tmp_path / "models"
    (folder / "sub").mkdir(parents=True)
    (folder / "link.safetensors").symlink_to(secret)
    (folder / "out").symlink_to(tmp_path)
    monkeypatch.chdir(folder)
    library = Library((folder,), names_only=True)
    said = refusal(library, name)
    assert str(tmp_path) not in said
    refusal(library, str(secret))
    assert library.files(CHECKPOINT) == ()
    assert set(library.left_alone) == {folder / "link.safetensors", folder / "out"}
    assert Library((folder,)).find(str(secret), CHECKPOINT) == secret


def test_a_damaged_file_is_found_by_its_name_alone(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    library = Library((tmp_path,))
    assert library.find("model", CHECKPOINT) == tmp_path / "model.safetensors"
    assert [library.files(kind) for kind in (CHECKPOINT, LORA, EMBEDDING)] == [(), (), ()]


def test_a_link_within_a_folder_is_followed(tmp_path: Path) -> None:
    put(tmp_path / "blobs" / "0123.safetensors")
    (tmp_path / "nice.safetensors").symlink_to("blobs/0123.safetensors")
    (tmp_path / "loop.safetensors").symlink_to("loop.safetensors")
    assert Library((tmp_path,)).find("nice", CHECKPOINT) == tmp_path / "nice.safetensors"


def test_a_diffusers_folder_is_one_model(tmp_path: Path) -> None:
    (tmp_path / "dreams" / "unet").mkdir(parents=True)
    (tmp_path / "dreams" / "model_index.json").write_text("{}")
    put(tmp_path / "dreams" / "unet" / "diffusion_pytorch_model.safetensors")
    library = Library((tmp_path,))
    assert library.find("dreams", CHECKPOINT) == tmp_path / "dreams"
    refusal(library, "diffusion_pytorch_model")


def test_what_is_not_there_names_the_folders_and_near_names(tmp_path: Path) -> None:
    put(tmp_path / "anything-v4.0-pruned.safetensors")
    line = refusal(Library((tmp_path,)), "anything-v4-pruned")
    assert str(tmp_path) in line and "similar names: anything-v4.0-pruned" in line
    assert "CLIPSKIP_MODELS" in refusal(Library((tmp_path / "none",)), "zzz")
    for odd in ("", "\0", "a" * 5000, "[0123456789]", ".", "..", "/"):
        refusal(Library((tmp_path,)), odd, allow_path=False)


def test_folders_come_from_the_arguments_the_environment_and_the_starter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPSKIP_MODELS", os.pathsep.join([str(tmp_path / "b"), str(tmp_path / "c")]))
    assert Library.of_user([tmp_path / "a"]).folders == (*(tmp_path / name for name in "abc"), STARTER)


def test_the_starters_layout_is_one_of_ours(tmp_path: Path) -> None:
    starter = put(tmp_path / "starter.safetensors")
    ogre = put(tmp_path / "loras" / "ogre.safetensors", LORA)
    library = Library((tmp_path,))
    assert library.find("starter", CHECKPOINT) == starter and library.find("ogre", LORA) == ogre


def store(tmp_path: Path) -> tuple[Path, Path]:
    """A model folder whose files are links into a store beside it, as people share one store between tools."""
    kept, root = tmp_path / "store", tmp_path / "ui"
    put(kept / "linked.safetensors", LORA)
    put(kept / "dir" / "inner.safetensors", LORA)
    (root / "models" / "Lora").mkdir(parents=True)
    (root / "models" / "Lora" / "linked.safetensors").symlink_to(kept / "linked.safetensors")
    (root / "models" / "Lora" / "sub").symlink_to(kept / "dir")
    (root / "models" / "Stable-diffusion").symlink_to(kept / "models")
    put(kept / "models" / "big.safetensors")
    return kept, root


def test_the_user_follows_links_to_files_and_folders_wherever_they_lead(tmp_path: Path) -> None:
    kept, root = store(tmp_path)
    library = Library((root,))
    assert library.find("linked", LORA).resolve() == kept / "linked.safetensors"
    assert library.find("sub/inner", LORA).resolve() == kept / "dir" / "inner.safetensors"
    assert library.find("big", CHECKPOINT).resolve() == kept / "models" / "big.safetensors"
    assert [found.name for found in library.files(LORA)] == ["linked.safetensors", "sub/inner.safetensors"]
    assert library.left_alone == ()


def test_a_server_follows_links_that_its_owner_allows_and_tells_of_the_others(tmp_path: Path) -> None:
    kept, root = store(tmp_path)
    closed = Library((root,), names_only=True)
    lora = root / "models" / "Lora"
    assert closed.files(LORA) == closed.files(CHECKPOINT) == ()
    assert set(closed.left_alone) == {lora / "linked.safetensors", lora / "sub", root / "models" / "Stable-diffusion"}
    assert "a link of that name leads out of the model folders" in refusal(closed, "linked", LORA)
    assert str(kept) not in refusal(closed, "linked", LORA)
    partly = Library((root,), names_only=True, allowed=(kept / "dir",))
    assert [found.name for found in partly.files(LORA)] == ["sub/inner.safetensors"]
    open_ = Library((root,), names_only=True, allowed=(kept,))
    assert len(open_.files(LORA)) == 2 and len(open_.files(CHECKPOINT)) == 1
    assert open_.left_alone == ()


def test_links_in_circles_end_and_a_file_linked_twice_is_one(tmp_path: Path) -> None:
    put(tmp_path / "a" / "one.safetensors", LORA)
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a")
    (tmp_path / "again").symlink_to(tmp_path / "a")
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "one.safetensors").symlink_to(tmp_path / "a" / "one.safetensors")
    library = Library((tmp_path,))
    assert library.find("one", LORA).resolve() == tmp_path / "a" / "one.safetensors"
    assert len(library.files(LORA)) < 6


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("69528490df", "Civitai"), ("19565", "Civitai"), ("owner/repo", "Hugging Face"), ("a/b/x.safetensors@v1", "Hugging Face"),
        ("owner/x.safetensors", ""), ("nothing", ""), ("e3b0c44298fc", ""),
    ],
)  # fmt: skip
def test_what_is_not_here_may_be_fetched_by_a_command_that_the_error_names(
    tmp_path: Path, name: str, host: str
) -> None:
    with pytest.raises(NotFound) as said:
        Library((tmp_path,)).find(name, FileKind.LORA)
    assert (f"clipskip fetch {name}, looks for it on {host}" in str(said.value)) == bool(host)
    assert ("--fetch" in str(said.value)) == bool(host)
    with pytest.raises(NotFound) as said:
        Library((tmp_path,), names_only=True).find(name, FileKind.LORA)
    assert "--fetch" not in str(said.value), "a server fetches nothing for a name"


@pytest.mark.slow
def test_a_thousand_files_are_searched_for_a_hash_and_five_thousand_listed_in_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once their hashes are remembered, by size, time and inode; in processor time."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "models" / "loras"
    folder.mkdir(parents=True)
    name = "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight"
    for number in range(1000):
        save_file({name: torch.tensor([[float(number), 1.0]])}, folder / f"{number}.safetensors")
    digest = hash_file(folder / "777.safetensors").sha256
    assert Library((tmp_path / "models",)).find_hash(digest, FileKind.LORA)
    started = time.process_time()
    path = Library((tmp_path / "models",)).find_hash(digest, FileKind.LORA)
    assert path == folder / "777.safetensors"
    assert time.process_time() - started < 1
    for number in range(1000, 5000):
        (folder / f"{number}.safetensors").hardlink_to(folder / "0.safetensors")
    started = time.process_time()
    assert len(Library((tmp_path / "models",)).files(FileKind.LORA)) == 5000
    assert time.process_time() - started < 1
