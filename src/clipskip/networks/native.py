"""The attention kernel in C, compiled once on the user's machine, for processors with matrix tiles (AMX).

Without a compiler, a folder to keep it in, or Linux on x86-64, there is no kernel and torch's attention is used;
nothing is downloaded and nothing is reported.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import final

import torch
from jaxtyping import Float
from platformdirs import user_cache_path
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

Rows = Float[Tensor, "batch tokens width"]
Others = Float[Tensor, "batch others width"]

SOURCE = Path(__file__).with_name("attention_amx.c")
COMPILERS = ("gcc", "cc")
FLAGS = ("-O3", "-std=gnu11", "-shared", "-fPIC")
PATIENCE_S = 60
WIDEST, STEP = 160, 8
"""The widest head that the kernel takes, and the number that a head's width must be a multiple of."""
CLOSE = 0.02
"""The greatest relative difference from torch's attention in the check after building: each rounds to bfloat16,
0.004."""


@final
class Kernel:
    """softmax(q k / sqrt(d)) v per head in bfloat16, on torch's own threads."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._attend = library.attend
        strides = ctypes.POINTER(ctypes.c_int64)
        self._attend.argtypes = [*[ctypes.c_void_p] * 4, strides, *[ctypes.c_int] * 5, ctypes.c_float, ctypes.c_int]

    @staticmethod
    def takes(queries: Rows, keys: Others, values: Others, *, heads: int) -> bool:
        """Return whether the kernel takes these tensors: bfloat16 on the CPU, with each token's numbers contiguous."""
        width = queries.shape[-1] // heads
        return width % STEP == 0 and width <= WIDEST and all(
            rows.dtype == torch.bfloat16 and rows.device.type == "cpu" and rows.stride(-1) == 1
            for rows in (queries, keys, values)
        )  # fmt: skip

    def __call__(self, queries: Rows, keys: Others, values: Others, *, heads: int) -> Rows:
        """Return what `attend` returns, written over the queries: fresh memory costs more than attending to a text.

        Raises MemoryError when one head's keys and values do not fit into memory.
        """
        tensors, width = (queries, keys, values, queries), queries.shape[-1] // heads
        strides = [stride for tensor in tensors for stride in tensor.stride()[:2]]
        failed = self._attend(
            *(tensor.data_ptr() for tensor in tensors), (ctypes.c_int64 * len(strides))(*strides), len(queries), heads,
            queries.shape[1], keys.shape[1], width, width**-0.5, torch.get_num_threads(),
        )  # fmt: skip
        if failed:
            raise MemoryError
        return queries


def load_kernel() -> Kernel | None:
    """Return the kernel, compiled first if need be. The caller has checked that the processor has AMX."""
    if os.environ.get("CLIPSKIP_NATIVE") == "0" or (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return None
    return build(user_cache_path("clipskip"))


def build(folder: Path, *, source: Path = SOURCE, compilers: Sequence[str] = COMPILERS) -> Kernel | None:
    """Return the kernel from its file in `folder`, compiled when it is missing; None where that fails."""
    compiler = next((path for name in compilers if (path := shutil.which(name))), None)
    if compiler is None:
        return None
    try:
        version = subprocess.run([compiler, "--version"], capture_output=True, timeout=PATIENCE_S, check=True).stdout
        digest = hashlib.sha256(b"\0".join([source.read_bytes(), version, " ".join(FLAGS).encode()])).hexdigest()
        file = folder / f"attention-{digest[:16]}.so"
        if not file.exists():
            _compile(compiler, source, file)
        library = ctypes.CDLL(str(file))
    except (OSError, subprocess.SubprocessError):
        return None
    kernel = Kernel(library)
    return kernel if library.begin() == 0 and _is_right(kernel) else None


def _compile(compiler: str, source: Path, file: Path) -> None:
    """Compile to a temporary name and move it into place when complete, so that several processes can build at once."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        built = Path(folder) / file.name
        command = [compiler, *FLAGS, str(source), "-o", str(built), "-lm"]
        subprocess.run(command, capture_output=True, timeout=PATIENCE_S, check=True)
        built.replace(file)


def _is_right(kernel: Kernel) -> bool:
    """Return whether the kernel agrees with torch's attention for more rows, keys and numbers than fit one tile."""
    numbers, here = torch.Generator().manual_seed(0), torch.device("cpu")
    q, k, v = (torch.randn(1, n, 80, generator=numbers, device=here).bfloat16() for n in (35, 290, 290))
    queries, keys, values = (rows.float().view(1, -1, 2, 40).transpose(1, 2) for rows in (q, k, v))
    right = scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2)
    mine = kernel(q, k, v, heads=2).float()
    return bool((mine - right).norm() < CLOSE * right.norm())
