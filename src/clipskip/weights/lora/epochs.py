"""The files that one training of a LoRA saved, in; the same in the order of training, each with its epoch, out.

kohya's sd-scripts writes `ss_epoch` and `ss_steps`, and names its files NAME-000010, NAME-step00000500 and, the last one, NAME
(library/train_util.py EPOCH_FILE_NAME, STEP_FILE_NAME). OneTrainer names them PREFIX2026-08-19_21-38-17-save-STEPS-EPOCH-STEP
(modules/trainer/GenericTrainer.py, modules/util/TrainProgress.py) and writes neither.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipskip.errors import LoraError
from clipskip.weights.container import Header
from clipskip.weights.lora.trainer_metadata import plain_line

NAMES = (
    re.compile(r"(?P<stem>.*?)\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-save-(?P<steps>\d+)-(?P<epoch>\d+)-\d+"),
    re.compile(r"(?P<stem>.+)-step(?P<steps>\d{8})"),
    re.compile(r"(?P<stem>.+)-(?P<epoch>\d{6})"),
    re.compile(r"(?P<stem>.*?)[-_ ]?(?:epoch|ep|e)[-_ ]?(?P<epoch>\d{1,6})", re.IGNORECASE),
    re.compile(r"(?P<stem>.*?)[-_ ]?(?:steps?|s)[-_ ]?(?P<steps>\d{1,9})", re.IGNORECASE),
    re.compile(r"(?P<stem>.*?)[-_ ](?P<steps>\d{9})"),
    re.compile(r"(?P<stem>.*?)[-_ ]?(?P<epoch>\d{1,6})"),
)
"""OneTrainer's, kohya's two, what people type, ai-toolkit's, and any number at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One file of a training."""

    path: Path
    name: str
    """The file's stem."""
    epoch: int | None
    """How many epochs it was trained for; None where only steps are known."""
    steps: int | None

    @property
    def label(self) -> str:
        """Return the epoch's name in a table."""
        parts = [f"epoch {self.epoch}"] if self.epoch is not None else []
        parts += [f"{self.steps} steps"] if self.steps is not None else []
        return ", ".join(parts) or "the last"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Saved:
    header: Header
    stem: str
    """The name that its training gave all of its files."""
    session: str
    """kohya's, which a training that was resumed has several of; empty where it is not told."""
    began: float
    epoch: int | None
    steps: int | None


def order_epochs(headers: Sequence[Header]) -> tuple[Epoch, ...]:
    """Return the files in the order of their training; LoraError where they are not of one LoRA, or nothing tells the order."""
    saved = [_saved(header) for header in headers]
    _check_one_lora(saved)
    with_steps = all(file.steps is not None for file in saved)
    unnumbered = [file for file in saved if file.epoch is None and file.steps is None]
    if len(unnumbered) > 1 or not (with_steps or all(file.epoch is not None or file in unnumbered for file in saved)):
        names = ", ".join(sorted(file.header.path.name for file in (unnumbered or saved))[:3])
        raise LoraError(
            f"nothing says in which order these were trained: {names}; rename them to NAME-000001, NAME-000002 and so on",
            field="lora",
        )

    def place(file: _Saved) -> tuple[float, float, str]:
        number = file.steps if with_steps else file.epoch
        return (file.began, float("inf") if number is None else number, file.header.path.name)

    return tuple(
        Epoch(path=file.header.path, name=file.header.path.stem, epoch=file.epoch, steps=file.steps)
        for file in sorted(saved, key=place)
    )


def _saved(header: Header) -> _Saved:
    metadata, name = header.metadata, header.path.stem
    match = next((named for pattern in NAMES if (named := pattern.fullmatch(name))), None)
    groups: Mapping[str, str | None] = match.groupdict() if match else {}
    session = metadata.get("ss_session_id", "").strip()
    return _Saved(
        header=header,
        stem=plain_line(metadata.get("ss_output_name", "")) or (groups.get("stem") or "" if match else name),
        session=session,
        began=_order_number(metadata.get("ss_training_started_at")) if session else 0.0,
        epoch=_first_int(metadata.get("ss_epoch"), groups.get("epoch")),
        steps=_first_int(metadata.get("ss_steps"), groups.get("steps")),
    )


def _check_one_lora(saved: Sequence[_Saved]) -> None:
    """LoraError for files of several trainings: those of one change the same modules, and have one name or session."""
    sessions = {file.session for file in saved}
    if len(sessions) > 1 or "" in sessions:
        stems = Counter(file.stem for file in saved)
        if len(stems) > 1:
            listed = ", ".join(f"{stem or 'no name'} ({count})" for stem, count in stems.most_common(5))
            raise LoraError(
                f"these files belong to {len(stems)} LoRAs: {listed}; give the files of one, as in --lora 'out/NAME-*.safetensors'",
                field="lora",
            )
    first = saved[0].header
    for file in saved[1:]:
        if file.header.shapes != first.shapes:
            raise LoraError(
                f"{first.path.name} and {file.header.path.name} are not epochs of one LoRA: they change different modules, or "
                "their ranks differ; give files of one training",
                field="lora",
            )


def _first_int(*texts: str | None) -> int | None:
    """Return the first that is a whole number."""
    numbers = (int(text) for text in texts if text and re.fullmatch(r"[0-9]{1,12}", text.strip()))
    return next(numbers, None)


def _order_number(text: str | None) -> float:
    return float(text) if text and re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,12})?", text.strip()) else 0.0
