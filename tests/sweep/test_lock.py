"""A folder has one process that draws into it."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clipskip.errors import OutputError
from clipskip.sweep import held

HOLD = (
    "import os, sys; from pathlib import Path; from clipskip.sweep import held\n"
    "with held(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
)


def test_who_comes_second_is_refused_and_told_who_has_the_folder(tmp_path: Path) -> None:
    with held(tmp_path) as lockable:
        assert lockable
        with pytest.raises(OutputError, match=f"in use by process {os.getpid()} on "), held(tmp_path):
            pass
    with held(tmp_path) as free:
        assert free


def test_the_lock_of_a_process_that_was_killed_is_free(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", HOLD, tmp_path], check=False)
    assert (tmp_path / ".clipskip-server.lock").read_text().startswith("process ")
    with held(tmp_path) as free:
        assert free


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_says_so_and_gets_no_file_that_stands_for_one(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(handle: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with held(tmp_path) as first, held(tmp_path) as second:
        assert not first and not second


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="choose another folder with --out"), held(tmp_path / "file"):
        pass
