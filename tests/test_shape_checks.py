"""Shapes are checked while the tests run (`shape_checks.py`)."""

import subprocess
import sys

import pytest
import torch
from beartype.roar import BeartypeCallHintViolation as WrongShape
from shape_checks import ROOMS

import clipskip.score  # noqa: F401  the last of the rooms, so all of them
from clipskip.encode import TextVectors
from clipskip.image import enlarge_latent
from clipskip.measures.chances import chances
from clipskip.networks.blocks import from_rows
from clipskip.networks.clip import QuickGelu


def test_a_function_called_with_a_wrong_shape_fails() -> None:
    with pytest.raises(WrongShape, match="latent"):
        enlarge_latent(torch.zeros(4, 8, 8), "Latent", cells=(16, 16))
    with pytest.raises(WrongShape, match="losses"):
        chances(torch.zeros(3).double().numpy())


def test_a_function_that_gives_back_a_wrong_shape_fails() -> None:
    twice_as_many = torch.zeros(1, 5, 3, 2)
    with pytest.raises(WrongShape, match="return"):
        from_rows(torch.zeros(2, 12, 5), like=twice_as_many)


def test_a_method_and_a_dataclass_of_a_wrong_shape_fail() -> None:
    with pytest.raises(WrongShape, match="Float"):
        QuickGelu()(torch.zeros(2, dtype=torch.int64))
    with pytest.raises(WrongShape, match="tokens"):
        TextVectors(tokens=torch.zeros(8))


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_with_arrays_is_checked(room: str) -> None:
    modules = [module for name, module in sys.modules.items() if name.startswith(room)]
    values = [value for module in modules for value in vars(module).values()]
    assert any(getattr(value, "__code__", None) is not None and value.__code__.co_name == "checked" for value in values)


def test_the_package_imports_with_jaxtypings_own_hook() -> None:
    hooked = "from jaxtyping import install_import_hook as install\ninstall('clipskip', 'beartype.beartype')\n"
    subprocess.run([sys.executable, "-c", hooked + "import clipskip.doors.cli"], check=True)
