"""The advise command for several files of one LoRA: it finds its epochs behind --lora and compares them."""

import glob
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from clipskip.advise import Compared, compare, whole_skips
from clipskip.doors.advising import AdviseOptions, open_asked, progress_of
from clipskip.doors.epochs_text import epoch_lines, epoch_picture, plain_epochs
from clipskip.errors import LoraError, NotFound, OutputError, SpecError
from clipskip.spec import LoraRef
from clipskip.sweep import find_model
from clipskip.weights import FileKind, Library, read_allowed, read_trainer_config
from clipskip.weights.lora import Epoch, order_epochs

ENDINGS = (".safetensors", ".pt", ".bin", ".ckpt")
"""A word of the command that ends so and is a file is a LoRA."""


def split_words(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the prompt, and the files that a shell made of a pattern behind --lora; SpecError for two prompts."""
    files = [word for word in words if word.lower().endswith(ENDINGS) and Path(word).is_file()]
    texts = [word for word in words if word not in files]
    if len(texts) > 1:
        raise SpecError(
            f"there are {len(texts)} prompts; put one in quotes: {texts[0]!r}, {texts[1]!r}", field="prompt"
        )
    return (texts[0] if texts else None), files


def spread(loras: Sequence[str], files: Sequence[str], *, allow_pickle: bool) -> tuple[list[str], bool]:
    """Return every LoRA by itself, with the files of patterns and folders, and whether they must be epochs of one LoRA."""
    spread_out: list[str] = []
    several = bool(files)
    for text in loras:
        ref = LoraRef.parse(text)
        path = Path(ref.name).expanduser()
        if path.is_dir():
            endings = ENDINGS if allow_pickle else ENDINGS[:1]
            inside = sorted(str(file) for file in path.iterdir() if file.suffix.lower() in endings)
        elif not path.is_file() and set(ref.name) & {"*", "?"}:
            inside = sorted(glob.glob(str(path), recursive=True))
        else:
            spread_out.append(text)
            continue
        if not inside:
            raise NotFound(f"--lora {ref.name}: no LoRA file was found", field="lora")
        several = several or len(inside) > 1
        spread_out += [f"{name}{text[len(ref.name) :]}" for name in inside]
    return [*spread_out, *files], several


def epochs_among(options: AdviseOptions, *, must: bool) -> tuple[Epoch, ...] | None:
    """Return the request's LoRAs as epochs of one, in order; None where they are LoRAs of several trainings. With `must` that is
    an error."""
    loras, allow_pickle = options.request.loras, options.allow_pickle
    if len(loras) < 2:
        return None
    library = Library.of_user(options.folders)
    try:
        paths = [library.find(ref.name, FileKind.LORA, allow_path=True) for ref in loras]
        ordered = order_epochs([read_allowed(path, allow_pickle=allow_pickle)[0] for path in dict.fromkeys(paths)])
    except LoraError:
        if must:
            raise
        return None
    if len({(ref.text_encoder, ref.unet) for ref in loras}) > 1:
        raise SpecError("epochs of one LoRA are compared at one strength; give all of them the same", field="lora")
    return ordered if len(ordered) > 1 else None


def run_epochs(options: AdviseOptions, epochs: tuple[Epoch, ...]) -> str:
    """Compare the epochs, with progress on standard error, and return the answer."""
    if options.base or options.clip or options.keep:
        raise SpecError(
            "--base, --clip and --remember do not apply to a comparison of epochs; leave them out", field="lora"
        )
    request = options.request
    console, library = Console(stderr=True, highlight=False), Library.of_user(options.folders)
    config = read_trainer_config(options.trainer_config) if options.trainer_config else None
    model = open_asked(options, find_model(request.model, hash=request.model_hash, library=library), console)
    wanted = Compared(
        request=replace(request, loras=()),
        epochs=epochs,
        strength=request.loras[0],
        skips=whole_skips(options.skips, depth=model.facts.depth),
        images=options.images,
        config=config,
    )
    with progress_of(console, "") as tell:
        comparison = compare(model, wanted, library, allow_pickle=options.allow_pickle, tell=tell)
    if options.plot is not None:
        _write_plot(options.plot, epoch_picture(comparison))
    if options.as_json:
        return json.dumps(plain_epochs(comparison, family=model.facts.family), indent=2, ensure_ascii=False)
    return "\n".join(epoch_lines(comparison, family=model.facts.family, tool=options.dialect))


def _write_plot(path: Path, svg: str) -> None:
    try:
        path.write_text(svg, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"the plot cannot be written to {path}: {error.strerror or error}", field="out") from None
