"""What stands behind --lora of the advise command: one LoRA, several, or the epochs of one, as files, a pattern or a folder."""

import glob
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from clipskip.advise import Compared, compare, whole_skips
from clipskip.doors.epochs_text import epoch_lines, epoch_picture, plain_epochs
from clipskip.errors import LoraError, NotFound, OutputError, SpecError
from clipskip.spec import ClipSkip, Dialect, LoraRef, Request
from clipskip.sweep import find_model, load_model
from clipskip.weights import FileKind, Library, read_allowed, read_trainer_config
from clipskip.weights.lora import Epoch, order_epochs

ENDINGS = (".safetensors", ".pt", ".bin", ".ckpt")
"""Of files that are LoRAs where they stand among the words of a command."""


def split_words(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The prompt, and the files that a shell made of a pattern behind --lora; SpecError for two prompts."""
    files = [word for word in words if word.lower().endswith(ENDINGS) and Path(word).is_file()]
    texts = [word for word in words if word not in files]
    if len(texts) > 1:
        raise SpecError(
            f"there are {len(texts)} prompts; put one in quotes: {texts[0]!r}, {texts[1]!r}", field="prompt"
        )
    return (texts[0] if texts else None), files


def spread(loras: Sequence[str], files: Sequence[str], *, allow_pickle: bool) -> tuple[list[str], bool]:
    """Every LoRA by itself: patterns and folders become their files. Whether they must be epochs of one LoRA."""
    found: list[str] = []
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
            found.append(text)
            continue
        if not inside:
            raise NotFound(f"--lora {ref.name}: no LoRA file is there", field="lora")
        several = several or len(inside) > 1
        found += [f"{name}{text[len(ref.name) :]}" for name in inside]
    return [*found, *files], several


def epochs_among(
    request: Request, folders: Sequence[Path], *, must: bool, allow_pickle: bool
) -> tuple[Epoch, ...] | None:
    """The request's LoRAs as epochs of one, in order; None where they are LoRAs of several trainings. With `must` that is an
    error."""
    if len(request.loras) < 2:
        return None
    library = Library.of_user(folders)
    try:
        paths = [library.find(ref.name, FileKind.LORA, allow_path=True) for ref in request.loras]
        ordered = order_epochs([read_allowed(path, allow_pickle=allow_pickle)[0] for path in dict.fromkeys(paths)])
    except LoraError:
        if must:
            raise
        return None
    if len({(ref.text_encoder, ref.unet) for ref in request.loras}) > 1:
        raise SpecError("epochs of one LoRA are compared at one strength; give all of them the same", field="lora")
    return ordered if len(ordered) > 1 else None


def run_epochs(
    request: Request,
    epochs: tuple[Epoch, ...],
    skips: Sequence[ClipSkip],
    *,
    tool: str,
    images: Path | None,
    config: Path | None,
    out: Path | None,
    folders: Sequence[Path],
    allow_pickle: bool,
    as_json: bool,
) -> str:
    """Compares them, with progress on standard error, and says what was found."""
    dialect = Dialect.parse(tool)
    console, library = Console(stderr=True, highlight=False), Library.of_user(folders)
    trainer = read_trainer_config(config) if config else None
    path = find_model(request.model, hash=request.model_hash, library=library)
    with console.status("Opening the model"):
        model = load_model(path, allow_pickle=allow_pickle, prediction=request.prediction)
    wanted = Compared(
        request=replace(request, loras=()),
        epochs=epochs,
        strength=request.loras[0],
        skips=whole_skips(skips, depth=model.facts.depth),
        images=images,
        config=trainer,
    )
    columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("Asking the model")

        def tell(rows: int, most: int) -> None:
            bar.update(task, completed=rows, total=most, description=f"{rows} of {most} UNet evaluations")

        found = compare(model, wanted, library, allow_pickle=allow_pickle, tell=tell)
    if out is not None:
        try:
            out.write_text(epoch_picture(found), encoding="utf-8")
        except OSError as error:
            raise OutputError(f"the plot cannot be written to {out}: {error.strerror or error}", field="out") from None
    if as_json:
        return json.dumps(plain_epochs(found, family=model.facts.family), indent=2, ensure_ascii=False)
    return "\n".join(epoch_lines(found, family=model.facts.family, tool=dialect))
