"""Which arithmetic a machine trains fastest in without losing accuracy: measured once, then remembered."""

import fcntl
import hashlib
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

Name = Literal["fp32", "bf16"]
Matmul = Literal["highest", "medium"]

# Root mean square errors of products of unit variance: true fp32 has 3e-7, bf16 3e-3.
_FP32_ERROR, _BF16_ERROR = 2e-6, 1e-2
# How much faster a way must be to be taken. On the strided operands of a real step the other backend for fp32
# loses some of what it wins here: 1.06 here was 0.8 there (AMD EPYC, family 25).
_WORTH = 1.15
_ROWS, _IN, _OUT = 1024, 400, 1032
_REPEATS = 8


@dataclass(frozen=True)
class Precision:
    """name: fp32, or bf16 for autocast. matmul: torch's setting for products of fp32 matrices.

    speedups: over plain fp32, errors: root mean square, of what was measured before choosing; empty = nothing was.
    """

    name: Name
    matmul: Matmul = "highest"
    speedups: dict[str, float] | None = None
    errors: dict[str, float] | None = None


_PRECISION = TypeAdapter(Precision)


def choose_precision(wanted: Literal["auto", "fp32", "bf16"], accelerator: str) -> Precision:
    """What to train in. auto: on a GPU bf16 where it has it; on a CPU the fastest that is accurate enough.

    The measurement is kept in the user's cache folder, so that two trainings on one machine agree to the last bit.
    """
    if wanted != "auto":
        return Precision(wanted)
    if accelerator != "cpu" and torch.cuda.is_available():
        return Precision("bf16" if torch.cuda.is_bf16_supported() else "fp32")
    return _remembered(_cache_file(), _probe)


def cpu_has_bf16() -> bool:
    """Whether the processor has instructions for bf16; without them autocast is correct and slow."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


@contextmanager
def matmul_precision(precision: Precision) -> Iterator[None]:
    """Products of fp32 matrices are taken as `precision` says, within."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision.matmul)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def load_precision(raw: object) -> Precision | None:
    """A precision that was written down by `asdict`; None when it is not one."""
    try:
        return _PRECISION.validate_python(raw)
    except ValidationError:
        return None


def _probe() -> Precision:
    """Time and check the products of one layer, forward and backward.

    Processor time of one thread: other work on the machine must not decide.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(_ROWS, _IN, generator=generator)
    weight = torch.randn(_IN, _OUT, generator=generator) / _IN**0.5
    exact = x.double() @ weight.double()
    ways: dict[str, tuple[Precision, AbstractContextManager[object]]] = {
        "fp32": (Precision("fp32"), nullcontext()),
        "fp32 medium": (Precision("fp32", "medium"), nullcontext()),
    }
    if cpu_has_bf16():
        ways["bf16"] = (Precision("bf16"), torch.autocast("cpu", torch.bfloat16))
    seconds = dict.fromkeys(ways, float("inf"))
    errors: dict[str, float] = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for _ in range(_REPEATS):
        for way, (precision, context) in ways.items():
            with matmul_precision(precision), context:
                start = time.thread_time()
                product = _products(x, weight)
                seconds[way] = min(seconds[way], time.thread_time() - start)
            errors[way] = float((product.double() - exact).square().mean().sqrt())
    torch.set_num_threads(threads)
    speedups = {way: round(seconds["fp32"] / value, 2) for way, value in seconds.items()}
    return decide(speedups, errors)


def _products(x: Tensor, weight: Tensor) -> Tensor:
    y = x @ weight
    y @ weight.T
    x.T @ y
    return y


def decide(speedups: dict[str, float], errors: dict[str, float]) -> Precision:
    """The fastest way that is accurate enough, if it is worth it. Keys: fp32, fp32 medium, bf16."""
    best = "fp32"
    for way, limit in (("fp32 medium", _FP32_ERROR), ("bf16", _BF16_ERROR)):
        if way in speedups and errors[way] <= limit and speedups[way] >= _WORTH * speedups[best]:
            best = way
    # Under bf16 a few products stay in fp32.
    medium = errors["fp32 medium"] <= _FP32_ERROR and speedups["fp32 medium"] >= _WORTH
    return Precision(
        "bf16" if best == "bf16" else "fp32", "medium" if medium else "highest", speedups, errors
    )


def _remembered(path: Path, measure: Callable[[], Precision]) -> Precision:
    """What the file holds; measured and written when there is none. Of several processes one measures."""
    found = _read(path)
    try:
        if found is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.with_suffix(".lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                found = _read(path)
                if found is None:
                    found = measure()
                    partial = path.with_suffix(".partial")
                    partial.write_text(json.dumps(asdict(found)), encoding="utf-8")
                    partial.replace(path)
    except OSError:
        # There is no place to remember it: then each process measures.
        pass
    return found or measure()


def _read(path: Path) -> Precision | None:
    try:
        return load_precision(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def _cache_file() -> Path:
    """One per kind of processor and version of torch."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next(line for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        processor = platform.processor()
    facts = [processor, torch.backends.cpu.get_cpu_capability(), torch.__version__]
    digest = hashlib.sha256(json.dumps([str(fact) for fact in facts]).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or _home() / ".cache")
    return folder / "mtlrank" / f"precision-{digest}.json"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        return Path(tempfile.gettempdir())
