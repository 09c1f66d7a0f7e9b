"""SDXL and SD 2.x from the command line, with tiny models made on the fly."""

from pathlib import Path

import pytest
import tiny_sdxl
import torch

from clipskip.doors.cli import main


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("families")
    tiny_sdxl.write(tiny_sdxl.sdxl(), folder / "pony.safetensors", dtype=torch.float16)
    tiny_sdxl.write(tiny_sdxl.sdxl(5), folder / "noob-v.safetensors", v_pred=torch.ones(1), ztsnr=torch.ones(1))
    tiny_sdxl.write(tiny_sdxl.sd2(), folder / "sd21.safetensors")
    tiny_sdxl.write(tiny_sdxl.refiner(), folder / "refiner.safetensors")
    return folder


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err
