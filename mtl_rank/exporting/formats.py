"""The formats of an exported file: how it is written, and how it is run to be checked."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.export import ExportedProgram

from mtl_rank.data.datamodule import to_batch
from mtl_rank.data.encoder import EncodedRows
from mtl_rank.errors import ConfigError, did_you_mean

Floats = npt.NDArray[np.float32]
_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Format:
    """file: its name. write: (program, names of inputs, names of outputs, path).

    open: of a written file, a function from encoded rows to its outputs.
    """

    file: str
    write: Callable[[ExportedProgram, Sequence[str], Sequence[str], Path], None]
    open: Callable[[Path, Sequence[str]], Callable[[EncodedRows], list[Floats]]]
    packages: tuple[str, ...] = ()


def format_named(name: str) -> Format:
    """Raises ConfigError for a name that is none, or packages that are not installed."""
    if name not in FORMATS:
        raise ConfigError(f"--format: there is no format {name!r}; {did_you_mean(name, FORMATS)}")
    missing = [package for package in FORMATS[name].packages if find_spec(package) is None]
    if missing:
        raise ConfigError(
            f"--format {name}: {', '.join(missing)} is not installed; pip install 'mtl-rank[{name}]'"
        )
    return FORMATS[name]


def _write_torch(program: ExportedProgram, inputs: Sequence[str], outputs: Sequence[str], path: Path) -> None:
    del inputs, outputs
    torch.export.save(program, path)


def _open_torch(path: Path, inputs: Sequence[str]) -> Callable[[EncodedRows], list[Floats]]:
    del inputs
    module = torch.export.load(path).module()

    def run(rows: EncodedRows) -> list[Floats]:
        batch = to_batch(rows)
        with torch.inference_mode():
            return [
                output.numpy() for output in module(batch.ids, batch.dense, [*batch.sequences, *batch.gaps])
            ]

    return run


def _write_onnx(program: ExportedProgram, inputs: Sequence[str], outputs: Sequence[str], path: Path) -> None:
    with _quiet():
        found = torch.onnx.export(
            program, dynamo=True, verbose=False, input_names=list(inputs), output_names=list(outputs)
        )
        assert found is not None
        found.save(path)


def _open_onnx(path: Path, inputs: Sequence[str]) -> Callable[[EncodedRows], list[Floats]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    read = {given.name for given in session.get_inputs()}

    def run(rows: EncodedRows) -> list[Floats]:
        arrays = dict(zip(inputs, [rows.ids, rows.dense, *rows.sequences, *rows.gaps], strict=True))
        feed = {name: np.ascontiguousarray(array) for name, array in arrays.items() if name in read}
        return list(session.run(None, feed))

    return run


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks about itself."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


FORMATS = {
    "onnx": Format("model.onnx", _write_onnx, _open_onnx, _ONNX_PACKAGES),
    "torch": Format("model.pt2", _write_torch, _open_torch),
}
