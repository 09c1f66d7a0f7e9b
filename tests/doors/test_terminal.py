"""What a terminal is given: nothing that it would obey, and one line for whatever goes wrong."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from clipskip.doors.cli import main
from clipskip.errors import ClipskipError, DamagedFile, UnsafeFile, WrongKind, printable

ESCAPES = "\x1b]0;owned\x07\x1b[31m\u202eevil\u2066\x9b2J\r\n"


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Run a command in an empty folder, in this process; its exit code, output and errors."""
    monkeypatch.setenv("CLIPSKIP_MODELS", "")
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["clipskip", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def obeyed(text: str) -> list[str]:
    """The characters that a terminal would act on."""
    return [sign for sign in text if (not sign.isprintable() and sign not in "\n\t ") or "\u202a" <= sign <= "\u202e"]


@pytest.mark.parametrize("kind", [ClipskipError, DamagedFile, UnsafeFile, WrongKind])
def test_no_error_carries_what_a_terminal_obeys(kind: type[ClipskipError]) -> None:
    said = str(kind(f"no LoRA called {ESCAPES}; look again"))
    assert not obeyed(said)
    assert "\n" not in said
    assert "\\u001b]0;owned\\u0007" in said and "\\u202eevil" in said


@pytest.mark.parametrize("value", ["9" * 10**6, "a b" * 10**6, "\x1b" * 10**6])
def test_a_long_value_is_shortened(value: str) -> None:
    assert len(str(ClipskipError(f"Clip Skip {value} is too deep"))) < 13_000
    assert str(ClipskipError(f"Clip Skip {value} is too deep")).startswith("Clip Skip ")


def test_letters_of_every_script_stay_as_they_are() -> None:
    text = "größe 模型 नमस्ते שלום 👩‍🎨 e\u0301"
    assert printable(text) == text
    assert printable("a\ud800b\U000e0041") == "a\\ud800b\\udb40\\udc41"
    assert printable("a\nb\tc\x00", lines=True) == "a\nb\tc\\u0000"


def test_a_files_own_words_are_printed_without_their_controls(command, tmp_path: Path) -> None:
    name = f"evil{ESCAPES.strip()}.safetensors"
    save_file({f"x{ESCAPES}": torch.ones(2, 2)}, tmp_path / name, metadata={"ss_output_name": ESCAPES})
    for words in (("inspect", name), ("inspect", name, "--json"), ("generate", "a", "--lora", name)):
        _, out, err = command(*words)
        assert not obeyed(out + err), words


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("generate", "a", "--steps", "abc"), "'abc'"),
        (("generate", "a", "--no-such"), "--no-such"),
        (("nothing",), "'nothing'"),
        (("inspect",), "FILE"),
        (("generate", "a", "--cfg", "much"), "'much'"),
        (("generate", "a", "--seed", "5", "--seed", "much"), "'much'"),
        (("generate", "a", "--count", "0"), "0"),
        (("generate", "a", "--out", ""), "it is empty"),
        (("generate", "a", "--out", "frog.png"), "is the name of a picture"),
    ],
)
def test_what_was_typed_wrong_is_told_in_one_line(command, words: tuple[str, ...], told: str) -> None:
    code, _, err = command(*words)
    assert code == 2
    assert err.startswith("clipskip: ") and err.count("\n") == 1
    assert told.lower() in err.lower() and "--help" in err and "Usage" not in err


def test_a_fault_of_ours_is_one_line_and_a_file_to_report(tmp_path: Path) -> None:
    code = "import clipskip.doors.cli as c\n@c.app.command()\ndef broken() -> None: {}['up\\x1b']\nc.main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "broken"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        timeout=120,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "KeyError" in done.stderr and "https://github.com/clipskip/clipskip/issues" in done.stderr
    (report,) = tmp_path.glob("clipskip-fault-*.txt")
    assert str(report) in done.stderr
    assert "Traceback" in report.read_text() and "clipskip 0." in report.read_text()


def test_a_second_ctrl_c_while_python_ends_prints_nothing(tmp_path: Path) -> None:
    """A thread that is still writing holds the end up; the second Ctrl-C comes then."""
    code = (
        "import threading, time, clipskip.doors.cli as c\n"
        "@c.app.command()\n"
        "def slow() -> None:\n"
        "    threading.Thread(target=time.sleep, args=(10,)).start()\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
        "c.main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, "slow"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    ) as running:
        assert running.stdout is not None and running.stderr is not None
        assert running.stdout.readline() == "ready\n"
        running.send_signal(signal.SIGINT)
        assert running.stderr.readline() == "clipskip: stopped\n"
        time.sleep(0.3)  # into the wait for the thread
        running.send_signal(signal.SIGINT)
        assert running.stderr.read() == ""
    assert running.returncode == 130


def test_every_door_prints_by_way_of_the_terminal() -> None:
    doors = Path(__file__).parents[2] / "src" / "clipskip" / "doors"
    raw = [path.name for path in doors.glob("*.py") if "print(" in path.read_text().replace("console.print(", "")]
    assert raw == ["terminal.py"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--steps", "0"), "steps 0 is out of range; use 1 to 150"),
        (("--steps", "151"), "steps 151 is out of range; use 1 to 150"),
        (("--size", "63x64"), "63"),
        (("--size", "100x512"), "not a multiple of 8; use 96 or 104"),
        (("--cfg", "1e9"), "use 1 to 30"),
    ],
)
def test_numbers_that_no_model_draws_are_refused_before_one_is_opened(
    command, words: tuple[str, ...], told: str
) -> None:
    """The model that is named does not exist, and that is not what is told of."""
    code, _, err = command("generate", "a", *words, "--model", "no-such-model")
    assert code == 2 and told in err, err
