"""The files that records name besides the model: LoRAs in every tool's lists, Civitai's resources, hashes."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from clipskip.errors import SpecError
from clipskip.spec.lora import LoraRef
from clipskip.spec.record_reader import Reader, Said, says_something

Record = Mapping[str, Any]  # JSON

NAMES = ("name", "model_name", "modelName", "modelFileName", "model_file_name", "fileName", "lora", "label")
WEIGHTS = ("weight", "strength", "strengthModel")
HASHES = ("hash", "modelHash")
LORA_KINDS = ("lora", "lycoris", "locon", "dora", "loha")
MODEL_KINDS = ("model", "checkpoint", "basemodel")
EMBEDDING_KINDS = ("embed", "embedding", "textualinversion", "ti")

TEXT_ENCODERS = re.compile(
    r"clip_?[lgh]\b|clip_?vit|t5_?(?:xx|xl|v1)|umt5|text_?enc|(?:^|[-_.])te(?:[-_.]|$)|qwen|gemma|llama", re.IGNORECASE
)
"""Names of files that Forge's modules are, where they are no VAE."""
SAME = frozenset({"usesamechoices", "builtin", "none"})
"""Forge's words for modules that are the picture's own."""

_MODULE = re.compile(r"(Hires )?Module [0-9]{1,2}")
_TAG = re.compile(r"<(?:lora|lyco):([^:>]+)")
_FOOOCUS = re.compile(r"(?:lora_combined_|LoRA )([0-9]{1,3})")
_OLD_FOOOCUS = re.compile(r"LoRA \[(.+)\] weight")
_ADDNET = re.compile(r"AddNet (Module|Model|Weight A|Weight B|Weight) ([0-9]{1,3})")
NO_FILE = ("", "none")
"""What some tools note where there is no file."""
ENDINGS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".sft")


@dataclass(slots=True, kw_only=True)
class Files:
    """The files named in a record's lists."""

    model: str | None = None
    model_hash: str | None = None
    loras: list[LoraRef] = field(default_factory=list)
    lora_hashes: dict[str, str] = field(default_factory=dict)
    embedding_hashes: dict[str, str] = field(default_factory=dict)


def read_files(reader: Reader, prompt: str, negative: str) -> Files:
    """Return the files in a record's lists, without LoRAs that the prompt's tags name."""
    files = Files()
    for name, digits in _hash_lists(reader, "lora_hashes"):
        files.lora_hashes[name] = digits
    for name, digits in _hash_lists(reader, "embedding_hashes"):
        files.embedding_hashes[name] = digits
    for said in reader.all("hashes"):
        _read_hashes(reader, said, files)
    for said in reader.all("resources"):
        for entry in entries(said):
            _read_resource(reader, said, entry, files)
    files.loras += [*_listed_loras(reader, files), *_addnet(reader)]
    files.loras += [lora for lora in _numbered(reader) if lora not in files.loras]
    tags = {name.strip() for name in _TAG.findall(prompt)}
    files.loras = [lora for lora in files.loras if lora.name not in tags]
    _check_named(reader, tags | {lora.name for lora in files.loras}, f"{prompt} {negative}")
    return files


def leave_hashes(reader: Reader, files: Files, prompts: str) -> None:
    """Tell of LoRAs in a list of hashes that no tag and no list with weights names: they are not drawn with.

    A1111 takes commas and colons out of the names in its list.
    """
    named = (*_TAG.findall(prompts), *(lora.name for lora in files.loras))
    known = {re.sub("[,:]", "", stem(name.strip())).lower() for name in named}
    for name, digits in files.lora_hashes.items():
        if re.sub("[,:]", "", stem(name)).lower() not in known:
            reader.leave(f"hash of the LoRA {name}, which the prompt has no tag of", digits or "?")


def _check_named(reader: Reader, loras: set[str], prompt: str) -> None:
    """SpecError for a LoRA or an embedding of a list without weights that nothing else of the record has."""
    for said in reader.all("lora_networks"):
        for entry in entries(said):
            name = str(entry).partition(":")[0].strip()
            if name not in loras and stem(name) not in {stem(lora) for lora in loras}:
                raise SpecError(
                    f"settings: {said.key} names the LoRA {name[:60]!r}, and the prompt has no tag of it: add <lora:{name[:60]}:1> "
                    "with its weight, or leave it out",
                    field="lora",
                )
    for said in reader.all("embedding_names"):
        for entry in entries(said):
            if stem(str(entry)).lower() not in prompt.lower():
                raise SpecError(
                    f"settings: {said.key} names the embedding {str(entry)[:60]!r}, which no prompt has; put it into one, or leave it "
                    "out",
                    field="prompt",
                )


def stem(name: str) -> str:
    """Return a model file's name without folders and endings, in Windows' or other spelling: a name to look up, not a
    path."""
    last = name.replace("\\", "/").rpartition("/")[2].lstrip("~")
    while bare := next((last[: -len(ending)] for ending in ENDINGS if last.lower().endswith(ending)), ""):
        last = bare
    return last


def entries(said: Said) -> list[object]:
    """Return the entries of a list, which a text file joins with commas."""
    if isinstance(said.value, list):
        return said.value
    if isinstance(said.value, int | float) and not isinstance(said.value, bool):
        return [said.value]
    if not isinstance(said.value, str):
        said.nonsense("a list")
    parts = said.value.strip().strip("[]").split(",")
    return [name for part in parts if (name := part.strip(" '\"")).lower() not in NO_FILE]


def read_modules(reader: Reader) -> Said | None:
    """Return the VAE among Forge's modules ("Module 1: kl-f8"); SpecError for a text encoder of its own, or for two that may be it."""
    noted = [(bool(match[1]), said) for match, said in reader.matching(_MODULE)]
    for said in reader.all("modules"):
        noted += [(False, Said(said.key, entry)) for entry in entries(said)]
    named = [(hires, said) for hires, said in noted if re.sub(r"\W", "", said.name()).lower() not in SAME]
    for _, said in named:
        if TEXT_ENCODERS.search(stem(said.name())):
            raise SpecError(
                f"settings: {said.key} {said.name()[:60]!r} is a text encoder of its own, which cannot be repeated; leave it out "
                "to read the prompt with the checkpoint's",
                field="model",
            )
    names = {stem(said.name()) for _, said in named}
    if len(names) > 1:
        told = " and ".join(f"{said.key} {said.name()[:40]}" for _, said in named)
        raise SpecError(f"settings: {told} may each be the VAE; leave the one that is", field="vae")
    hires_alone = names and all(hires for hires, _ in named)
    if hires_alone:
        raise SpecError(
            f"settings: {named[0][1].key} {named[0][1].name()[:60]!r} is a VAE of the second pass, which cannot be repeated; "
            "leave it out to decode with the picture's",
            field="vae",
        )
    return next((said for _, said in named), None)


def _hash_lists(reader: Reader, name: str) -> Iterator[tuple[str, str]]:
    """Yield name and hash of each entry in "a: 0123, b: 4567"."""
    for said in reader.all(name):
        for part in said.text().split(","):
            file, colon, digits = part.rpartition(":")
            if colon:
                yield file.strip(), digits.strip()
            else:
                reader.leave(said.key, part.strip())


def _read_hashes(reader: Reader, said: Said, files: Files) -> None:
    """Read A1111's "Hashes", by "model", "lora:name" and "embed:name"."""
    if not isinstance(said.value, dict):
        said.nonsense("a list of hashes by name")
    for key, digits in said.value.items():
        kind, colon, name = key.partition(":")
        if not isinstance(digits, str):
            Said(f"{said.key} {key}", digits).nonsense("a hash")
        if key == "model":
            files.model_hash = digits
        elif colon and kind == "lora":
            files.lora_hashes.setdefault(name, digits)
        elif colon and kind == "embed":
            files.embedding_hashes.setdefault(name, digits)
        else:
            reader.leave(f"{said.key} {key}", digits)


def _read_resource(reader: Reader, said: Said, entry: object, files: Files) -> None:
    """Read one of Civitai's resources or TensorArt's models: a name, a type, and a weight or a hash."""
    if isinstance(entry, str):
        reader.leave(said.key, entry)
        return
    if not isinstance(entry, dict):
        Said(said.key, entry).nonsense("a resource with name and type")
    item = _Item(reader, said.key, entry)
    kind = str(item.take("type", "modelType") or "").lower().replace("_", "").replace(" ", "")
    name = item.file()
    if kind in LORA_KINDS:
        files.loras.append(_lora_ref(name, item.number(WEIGHTS), item.number(("strengthClip",))))
        if digits := item.word(HASHES):
            files.lora_hashes.setdefault(name, digits)
    elif kind in MODEL_KINDS:
        files.model, files.model_hash = files.model or name, files.model_hash or item.word(HASHES)
    elif kind in EMBEDDING_KINDS:
        files.embedding_hashes.setdefault(name, item.word(HASHES) or "")
    elif not kind and name:
        raise SpecError(
            f"settings: {said.key} has {name[:60]!r} without a type: whether it is the model, a LoRA or an embedding is not "
            "said; give its type, or leave it out",
            field="resources",
        )
    else:
        reader.leave(f"{said.key} {name}".strip(), entry)
        return
    item.leave()


def _listed_loras(reader: Reader, files: Files) -> Iterator[LoraRef]:
    """Yield LoRAs from InvokeAI's list of models, Fooocus' triples, and SwarmUI's and Easy Diffusion's separate
    lists."""
    names: list[object] = []
    for said in (*reader.all("loras"), *reader.all("lora_names")):
        for entry in entries(said):
            if isinstance(entry, dict):
                yield _invoke_lora(reader, said, entry, files)
            elif isinstance(entry, list):
                yield _triple(reader, said, entry, files)
            elif isinstance(entry, str):
                names.append(entry)
            else:
                Said(said.key, entry).nonsense("a name with its weight")
    weights: list[tuple[Said, object]] = []
    for said in reader.all("lora_strengths"):
        for weight in entries(said):
            file, colon, number = weight.rpartition(":") if isinstance(weight, str) else ("", "", "")
            if colon:  # Fooocus' "ogre: 0.5, ink: 1"
                yield _lora_ref(file.strip(), Said(said.key, number.strip()).number())
            else:
                weights.append((said, weight))
    if weights and len(weights) != len(names):
        raise SpecError(
            f"settings: {len(names)} LoRAs are named and {len(weights)} strengths; give each LoRA one", field="lora"
        )
    for at, name in enumerate(names):
        weight = Said(weights[at][0].key, weights[at][1]).number() if weights else 1.0
        yield _lora_ref(str(name), weight)


def _invoke_lora(reader: Reader, said: Said, entry: Record, files: Files) -> LoraRef:
    item = _Item(reader, said.key, entry)
    model = item.take("model", "lora") if isinstance(entry.get("model", entry.get("lora")), dict) else None
    if model is None:
        lora = _lora_ref(item.file(), item.number(WEIGHTS))
    else:
        inner = _Item(reader, f"{said.key} model", model)
        lora = _lora_ref(inner.file(), item.number(WEIGHTS))
        inner.leave()
    if digits := item.word(HASHES):
        files.lora_hashes.setdefault(lora.name, digits)
    item.leave()
    return lora


def _triple(reader: Reader, said: Said, entry: list[object], files: Files) -> LoraRef:
    if not 2 <= len(entry) <= 3 or not isinstance(entry[0], str):
        Said(said.key, entry).nonsense("a name with its weight")
    lora = _lora_ref(entry[0], Said(said.key, entry[1]).number())
    if len(entry) == 3 and isinstance(entry[2], str) and entry[2]:
        files.lora_hashes.setdefault(lora.name, entry[2])
    elif len(entry) == 3:
        reader.leave(f"{said.key} {lora.name}", entry[2])
    return lora


def _numbered(reader: Reader) -> Iterator[LoraRef]:
    """Yield Fooocus' LoRAs: "lora_combined_1" and "LoRA 1" with "name : 0.5", in its first releases "LoRA [name]
    weight"."""
    for _, said in reader.matching(_FOOOCUS):
        name, colon, weight = said.text().rpartition(":")
        if not colon:
            said.nonsense("a name with its weight, as in name : 0.5")
        if name.strip().lower() not in NO_FILE:
            yield _lora_ref(name.strip(), Said(said.key, weight.strip()).number())
    for match, said in reader.matching(_OLD_FOOOCUS):
        if match[1].lower() not in NO_FILE:
            yield _lora_ref(match[1], said.number())


def _addnet(reader: Reader) -> Iterator[LoraRef]:
    """Yield LoRAs of kohya's Additional Networks in A1111's texts: "AddNet Model 1: name(hash)"; weight A is the
    U-Net's."""
    slots: dict[str, dict[str, Said]] = {}
    for match, said in reader.matching(_ADDNET):
        slots.setdefault(match[2], {})[match[1]] = said
    for number, slot in slots.items():
        model = slot.get("Model")
        if model is None:
            for said in slot.values():
                reader.leave(said.key, said.value)
            continue
        if "Module" in slot and slot["Module"].text() != "LoRA":
            slot["Module"].nonsense("LoRA, the only kind of additional network that is known")
        name = re.sub(r"\s*\([0-9a-fA-F]+\)$", "", model.text())
        both = slot["Weight"].number() if "Weight" in slot else 1.0
        unet, te = (slot[key].number() if key in slot else both for key in ("Weight A", "Weight B"))
        if name.lower() in NO_FILE:
            reader.leave(f"AddNet Model {number}", name)
        else:
            yield LoraRef(name=stem(name), text_encoder=te, unet=unet)


def _lora_ref(name: str, unet: float | None, text_encoder: float | None = None) -> LoraRef:
    if not name:
        raise SpecError("settings: a LoRA has no name", field="lora")
    unet = 1.0 if unet is None else unet
    return LoraRef(name=stem(name), text_encoder=unet if text_encoder is None else text_encoder, unet=unet)


class _Item:
    """An entry of a list, read like a record; what nobody took goes to the record's reader."""

    def __init__(self, reader: Reader, label: str, entry: Record) -> None:
        self.reader, self.label = reader, label
        self.entry = {key: value for key, value in entry.items() if says_something(value)}

    def take(self, *names: str) -> Any:  # JSON
        """Take the first of these keys that has a value."""
        return next((self.entry.pop(name) for name in names if name in self.entry), None)

    def word(self, names: Iterable[str]) -> str | None:
        """Take one of these keys, which is a text."""
        value = self.take(*names)
        return None if value is None else Said(f"{self.label} {next(iter(names))}", value).name()

    def number(self, names: Iterable[str]) -> float | None:
        """Take one of these keys, which is a number."""
        value = self.take(*names)
        return None if value is None else Said(f"{self.label} {next(iter(names))}", value).number()

    def file(self) -> str:
        """Return the file's name; Civitai's generator gives a model's version instead."""
        name = self.word(NAMES)
        version = self.word(("modelVersionName",))
        number = self.word(("modelVersionId", "modelFileId", "modelId"))
        if name is None and number is None:
            return ""
        return " ".join(filter(None, (name, version))) if name is not None else f"Civitai model version {number}"

    def leave(self) -> None:
        """Give what nobody took to the record's reader."""
        for key, value in self.entry.items():
            self.reader.leave(f"{self.label} {key}", value)
