"""Writes a run as one file that other programs can run, checked against the run on real rows."""

import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch.export import Dim, ExportedProgram

from mtl_rank.data.datamodule import to_batch
from mtl_rank.data.encoded import take
from mtl_rank.data.encoder import EncodedRows
from mtl_rank.data.prepare import as_polars, serving_columns
from mtl_rank.durable import put_folder
from mtl_rank.errors import ConfigError, DataError, RunError
from mtl_rank.exporting.formats import Floats, Format, format_named
from mtl_rank.exporting.ranker import Ranker
from mtl_rank.features.repository import FeatureRepository
from mtl_rank.features.retrieval import retrieve
from mtl_rank.features.snapshot import snapshot_rows
from mtl_rank.predict import Predictor
from mtl_rank.progress import Reporter
from mtl_rank.runs import write_json
from mtl_rank.training.precision import Precision

CHECKED_ROWS = 4_096
LARGEST_DIFFERENCE = 1e-4
DESCRIPTION = "export.json"
_EXACT = Precision("fp32")


@dataclass(frozen=True)
class Exported:
    """What was written.

    inputs, outputs: their names in order. rows: checked; difference: the largest from the run's predictions in fp32,
    of a value beyond 1 relative to it. as_scored: the same from its predictions in the precision that it was trained
    and scores in; the file itself is fp32.
    """

    folder: Path
    file: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    rows: int
    difference: float
    as_scored: float


def check_destination(folder: Path) -> None:
    """Raises ConfigError when the folder holds anything but an earlier export."""
    if (
        folder.exists()
        and not (folder / DESCRIPTION).is_file()
        and (not folder.is_dir() or any(folder.iterdir()))
    ):
        raise ConfigError(f"--to: {folder} is there and is no export; give a new folder")
    above = next(parent for parent in folder.absolute().parents if parent.exists())
    if not above.is_dir():
        raise ConfigError(f"--to: {above} is a file and cannot hold a folder")


def check_tasks(predictor: Predictor) -> None:
    """Raises RunError for a task with several probabilities, which an exported file has no outputs for."""
    for target in predictor.encoder.targets:
        if target.classes:
            raise RunError(
                f"run {predictor.run.id}: task {target.name} is {target.kind}; "
                "only runs of binary and regression tasks can be exported"
            )


def real_rows(
    predictor: Predictor, repository: FeatureRepository, project: Path, reporter: Reporter
) -> EncodedRows:
    """The first 4,096 examples from the validation window on, encoded. Raises DataError when there is none."""
    config = predictor.config
    reporter.stage("read examples", None)
    with tempfile.TemporaryDirectory(prefix="mtlrank-") as folder:
        rows = snapshot_rows(
            config.examples, project, serving_columns(repository), Path(folder) / "rows.parquet"
        )
        with retrieve(repository, rows, start=config.split.valid, batch_rows=CHECKED_ROWS) as batches:
            first = next((batch for batch in batches if batch.num_rows), None)
        if first is None:
            raise DataError(f"{config.examples}: no example from split.valid on to check the export with")
        return predictor.encoder.encode(as_polars(pa.Table.from_batches([first])), with_labels=False)


def export(predictor: Predictor, rows: EncodedRows, name: str, folder: Path, reporter: Reporter) -> Exported:
    """Write the file, the encoder and `export.json` into `folder`, in one step.

    name: onnx or torch. rows: what the file is checked on.
    Raises RunError with torch's reason where it cannot export the model, and when the file's predictions differ from
    the run's in fp32 by more than 1e-4; nothing is written then.
    """
    chosen = format_named(name)
    check_destination(folder)
    check_tasks(predictor)
    folder.parent.mkdir(parents=True, exist_ok=True)
    layout = predictor.encoder.layout
    histories = [column.name for column in layout.sequences]
    inputs = ("ids", "dense", *histories, *(f"{column.name}#gaps" for column in layout.timed))
    outputs = tuple(predictor.outputs)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        partial = Path(scratch) / "export"
        predictor.encoder.save(partial / "encoder")
        file = partial / chosen.file
        reporter.stage(f"export {name}", None)
        _write(predictor, rows, chosen, (inputs, outputs), file)
        reporter.stage(f"check {name}", None)
        run = chosen.open(file, inputs)
        difference = _difference(replace(predictor, precision=_EXACT), rows, run)
        if not difference <= LARGEST_DIFFERENCE:
            raise RunError(
                f"run {predictor.run.id}: the predictions of {chosen.file} differ from the run's by up to "
                f"{difference:.1e}, more than {LARGEST_DIFFERENCE:g}; not exported"
            )
        as_scored = difference if predictor.precision == _EXACT else _difference(predictor, rows, run)
        found = Exported(folder, folder / chosen.file, inputs, outputs, len(rows.ids), difference, as_scored)
        write_json(partial / DESCRIPTION, _description(predictor, name, found))
        put_folder(partial, folder, Path(scratch) / "away")
    return found


def _write(
    predictor: Predictor,
    rows: EncodedRows,
    chosen: Format,
    names: tuple[Sequence[str], Sequence[str]],
    file: Path,
) -> None:
    try:
        chosen.write(_program(predictor, rows), *names, file)
    # What torch cannot trace or translate it says by one of these, with pages of advice for its developers.
    except (RuntimeError, ValueError, TypeError) as error:
        raise RunError(
            f"run {predictor.run.id}: torch cannot export {predictor.config.model.name}: {_reason(error)}"
        ) from error


def _program(predictor: Predictor, rows: EncodedRows) -> ExportedProgram:
    """The run as a graph of tensor operations, for any number of rows."""
    some = np.arange(2) % len(rows.ids)
    batch = to_batch(take(rows, some))
    sequences = [*batch.sequences, *batch.gaps]
    any_number = {0: Dim("rows", min=1)}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return torch.export.export(
            Ranker(predictor).eval(),
            (batch.ids, batch.dense, sequences),
            dynamic_shapes=(any_number, any_number, [any_number] * len(sequences)),
        )


def _difference(predictor: Predictor, rows: EncodedRows, run: Callable[[EncodedRows], list[Floats]]) -> float:
    """The largest difference on all rows at once, and on the first one alone."""
    expected = list(predictor.predict_encoded(rows).values())
    largest = 0.0
    for count in (1, len(rows.ids)):
        for values, wanted in zip(run(take(rows, slice(0, count))), expected, strict=True):
            difference = np.abs(values - wanted[:count]) / np.maximum(np.abs(wanted[:count]), 1)
            largest = max(largest, float(difference.max()) if np.isfinite(difference).all() else np.inf)
    return largest


def _description(predictor: Predictor, name: str, found: Exported) -> dict[str, object]:
    layout = predictor.encoder.layout
    lengths = [column.max_len for column in (*layout.sequences, *layout.timed)]
    widths = [len(layout.ids), len(layout.dense), *lengths]
    return {
        "run": predictor.run.id,
        "format": name,
        "file": found.file.name,
        "torch": torch.__version__,
        "inputs": [
            {"name": given, "type": "float32" if given == "dense" else "int32", "shape": ["rows", width]}
            for given, width in zip(found.inputs, widths, strict=True)
        ],
        "outputs": [{"name": output, "type": "float32", "shape": ["rows"]} for output in found.outputs],
        "ids": [column.name for column in layout.ids],
        "dense": list(layout.dense),
        "checked_rows": found.rows,
        "largest_difference": found.difference,
        "largest_difference_as_scored": found.as_scored,
    }


def _reason(error: Exception) -> str:
    """The line that says what is the matter: of a chain of errors the first one's."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[0] if lines else type(cause).__name__
