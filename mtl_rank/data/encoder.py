"""FeatureEncoder: from retrieved tables to ids, numbers and sequences.

Fitted on the training rows only; the same object encodes training, scoring and serving.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import TypeAdapter

from mtl_rank.config import Task
from mtl_rank.config.model import Dim
from mtl_rank.data.dense import DenseScaler, Values, as_numbers
from mtl_rank.data.histories import as_lists, time_gaps
from mtl_rank.data.labels import LabelReader, Labels, Target, encode_labels
from mtl_rank.data.vocabulary import Family, Hashed, Ids, Lookup, Vocabulary, as_keys
from mtl_rank.errors import DataError, RunError, did_you_mean
from mtl_rank.features.schema import FeatureSchema, Input
from mtl_rank.nn.layout import IdColumn, Layout, SequenceColumn

FORMAT_VERSION = 2
BIN_SUFFIX = "#bin"
MISSING_SUFFIX = "#missing"

_SCALER = TypeAdapter(DenseScaler)
_TARGETS = TypeAdapter(tuple[Target, ...])
_HASHED = TypeAdapter(Hashed)
_DIM: TypeAdapter[Dim] = TypeAdapter(Dim)
_FAMILY: TypeAdapter[Family] = TypeAdapter(Family)


class EncodedRows(NamedTuple):
    """ids int32 (N, F), dense float32 (N, D), sequences int32 (N, L) each, labels float32 (N, T).

    weights: float32 (N,), how much each row counts in training; None = all alike.
    gaps: int32 (N, L) per sequence with times, see `mtl_rank.nn.layout.GAP_BUCKETS`.
    """

    ids: Ids
    dense: npt.NDArray[np.float32]
    sequences: tuple[Ids, ...]
    labels: Labels
    weights: Labels | None = None
    gaps: tuple[Ids, ...] = ()


@dataclass(frozen=True)
class FeatureEncoder:
    """Vocabularies, scalers and label statistics of one training set.

    lookups: by name of the input that owns the embedding rows. scalers: by name of the dense input.
    """

    schema: FeatureSchema
    tasks: Mapping[str, Task]
    lookups: Mapping[str, Lookup]
    scalers: Mapping[str, DenseScaler]
    targets: tuple[Target, ...]
    default_dim: Dim

    @cached_property
    def layout(self) -> Layout:
        """Which rows of which embedding table each column of a batch reads."""
        return build_layout(self.schema, self.lookups, self.scalers, self.default_dim)

    def encode(self, table: pl.DataFrame, with_labels: bool = True) -> EncodedRows:
        """Encode a retrieved table, row for row.

        Raises DataError for a missing column or one whose type changed since the encoder was fitted.
        """
        require_columns(table, self.schema)
        columns = {spec.name: spec for spec in self.schema.inputs}
        ids = np.empty((table.height, len(self.layout.ids)), np.int32)
        numbers: dict[str, Values] = {
            name: as_numbers(table[name], columns[name].origin) for name in self.scalers
        }
        for i, column in enumerate(self.layout.ids):
            name = column.name.removesuffix(BIN_SUFFIX)
            if column.name in columns:
                local = self._lookup_ids(columns[name], table[name])
            else:
                local = self.scalers[name].bins(numbers[name])
            np.add(local, column.offset, out=ids[:, i])
        dense = np.empty((table.height, len(self.layout.dense)), np.float32)
        for i, column_name in enumerate(self.layout.dense):
            name = column_name.removesuffix(MISSING_SUFFIX)
            dense[:, i] = (
                self.scalers[name].scale(numbers[name]) if column_name == name else np.isnan(numbers[name])
            )
        sequences = tuple(
            self._sequence_ids(columns[sequence.name], sequence, table[sequence.name])
            for sequence in self.layout.sequences
        )
        if with_labels:
            labels = encode_labels(LabelReader(self.tasks).read(table), self.targets)
        else:
            labels = np.empty((table.height, 0), np.float32)
        gaps = tuple(
            time_gaps(table, columns[sequence.name], sequence.max_len) for sequence in self.layout.timed
        )
        return EncodedRows(ids, dense, sequences, labels, gaps=gaps)

    def _lookup_ids(self, spec: Input, values: pl.Series) -> Ids:
        lookup = self.lookups[owner_of(spec)]
        return lookup.ids(as_keys(values, lookup.family, spec.origin))

    def _sequence_ids(self, spec: Input, column: SequenceColumn, values: pl.Series) -> Ids:
        """Most recent ids first in line with the end of the list, padded behind: int32 (N, L)."""
        padded = np.full((len(values), column.max_len), column.pad_id, np.int32)
        lists = as_lists(values, spec).list.tail(column.max_len)
        lengths = lists.list.len().fill_null(0).to_numpy()
        flat = lists.filter(lengths > 0).explode()
        if len(flat):
            padded[np.arange(column.max_len) < lengths[:, None]] = (
                self._lookup_ids(spec, flat) + column.offset
            )
        return padded

    def save(self, folder: Path) -> None:
        """Write `encoder.json` and one parquet per learned vocabulary into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        lookups: dict[str, dict[str, Any]] = {}
        for number, (name, lookup) in enumerate(self.lookups.items()):
            if isinstance(lookup, Vocabulary):
                file = f"vocabulary_{number:03d}.parquet"
                lookup.keys.rename("key").to_frame().write_parquet(folder / file)
                digest = hashlib.sha256((folder / file).read_bytes()).hexdigest()
                lookups[name] = {"family": lookup.family, "file": file, "sha256": digest}
            elif isinstance(lookup, Hashed):
                lookups[name] = dataclasses.asdict(lookup)
        document = {
            "format": FORMAT_VERSION,
            "schema": self.schema.model_dump(mode="json"),
            "tasks": {name: task.model_dump(mode="json") for name, task in self.tasks.items()},
            "lookups": lookups,
            "scalers": {name: dataclasses.asdict(scaler) for name, scaler in self.scalers.items()},
            "default_dim": self.default_dim,
            "targets": [dataclasses.asdict(target) for target in self.targets],
        }
        (folder / "encoder.json").write_text(json.dumps(document, indent=1), encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> "FeatureEncoder":
        """Read a saved encoder; its mapping is identical. Raises RunError when files are missing or damaged."""
        try:
            document = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
            if document["format"] != FORMAT_VERSION:
                raise RunError(f"{folder}: encoder format {document['format']}, expected {FORMAT_VERSION}")
            encoder = FeatureEncoder(
                schema=FeatureSchema.model_validate(document["schema"]),
                tasks={name: Task.model_validate(raw) for name, raw in document["tasks"].items()},
                lookups={name: _load_lookup(folder, raw) for name, raw in document["lookups"].items()},
                scalers={name: _SCALER.validate_python(raw) for name, raw in document["scalers"].items()},
                targets=_TARGETS.validate_python(document["targets"]),
                default_dim=_DIM.validate_python(document["default_dim"]),
            )
            _check_parts(encoder)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = str(error).splitlines()[0]
            raise RunError(f"{folder}: the encoder cannot be read ({reason}); train again") from None
        return encoder


def owner_of(spec: Input) -> str:
    """The input whose vocabulary and embedding rows `spec` uses."""
    return spec.options.shares or spec.name


def require_columns(table: pl.DataFrame, schema: FeatureSchema) -> None:
    """Raises DataError naming the nearest column for an input that the table lacks."""
    for spec in schema.inputs:
        for name in filter(None, [spec.name, spec.options.times]):
            if name not in table.columns:
                raise DataError(
                    f"{spec.origin}: the table has no column {name!r}; {did_you_mean(name, table.columns)}"
                )


def build_layout(
    schema: FeatureSchema,
    lookups: Mapping[str, Lookup],
    scalers: Mapping[str, DenseScaler],
    default_dim: Dim,
) -> Layout:
    """Give every input its rows in the embedding table of its width.

    Owners come first, in schema order, then the quantile bins of dense inputs.
    """
    sizes = {
        name: (lookup.size, _dim(schema, name, default_dim, lookup.size)) for name, lookup in lookups.items()
    }
    for name, scaler in scalers.items():
        if scaler.bin_rows:
            sizes[name + BIN_SUFFIX] = (scaler.bin_rows, _dim(schema, name, default_dim, scaler.bin_rows))
    dims = sorted({dim for _, dim in sizes.values()})
    rows = [0] * len(dims)
    ranges: dict[str, IdColumn] = {}
    for name, (size, dim) in sizes.items():
        table = dims.index(dim)
        ranges[name] = IdColumn(name, table, rows[table], size)
        rows[table] += size
    categorical = [
        dataclasses.replace(ranges[owner_of(spec)], name=spec.name)
        for spec in schema.with_role("categorical")
    ]
    bins = [column for name, column in ranges.items() if name.endswith(BIN_SUFFIX)]
    ids = tuple(sorted([*categorical, *bins], key=lambda column: column.table))
    positions = {column.name: i for i, column in enumerate(ids)}
    sequences = tuple(
        SequenceColumn(
            name=spec.name,
            table=(owner := ranges[owner_of(spec)]).table,
            offset=owner.offset,
            size=owner.size,
            max_len=spec.options.max_len,
            target=positions.get(owner_of(spec)),
            ordered=spec.role == "sequence",
            timed=spec.options.times is not None,
        )
        for spec in schema.with_role("sequence", "bag")
    )
    dense = list(scalers)
    indicators = [name + MISSING_SUFFIX for name, scaler in scalers.items() if scaler.has_missing]
    return Layout(tuple(dims), tuple(rows), ids, sequences, (*dense, *indicators))


def expected_layout(schema: FeatureSchema, default_dim: Dim) -> Layout:
    """What is known of the layout before any row is read: names and widths, not the numbers of rows.

    Nor are widths that go by it.
    """
    lookups = {
        owner_of(spec): Hashed("unknown", spec.options.buckets, salt=spec.name)
        for spec in schema.inputs
        if spec.role != "dense" and owner_of(spec) == spec.name
    }
    scalers = {
        spec.name: DenseScaler(
            spec.options.transform, 0.0, 1.0, (), tuple(map(float, range(1, spec.options.bins))), False
        )
        for spec in schema.with_role("dense")
    }
    return build_layout(schema, lookups, scalers, default_dim)


def _dim(schema: FeatureSchema, name: str, default_dim: Dim, rows: int) -> int:
    spec = next(spec for spec in schema.inputs if spec.name == name)
    return spec.options.dim or (auto_dim(rows) if default_dim == "auto" else default_dim)


def auto_dim(rows: int) -> int:
    """Width of an embedding of so many rows: 2 rows^(1/4), to the nearest power of two from 4 to 32.

    A rule of thumb: few values need few numbers, and few different widths mean few tables.
    """
    exponent = round(math.log2(2 * max(rows, 1) ** 0.25))
    return int(2 ** min(max(exponent, 2), 5))


def _load_lookup(folder: Path, raw: Mapping[str, Any]) -> Lookup:
    if "file" not in raw:
        return _HASHED.validate_python(raw)
    content = (folder / raw["file"]).read_bytes()
    if hashlib.sha256(content).hexdigest() != raw["sha256"]:
        raise ValueError(f"{raw['file']} differs from what was written")
    return Vocabulary(_FAMILY.validate_python(raw["family"]), pl.read_parquet(content)["key"])


def _check_parts(encoder: FeatureEncoder) -> None:
    """Raises ValueError when inputs, lookups, scalers, tasks and targets are not of one encoder."""
    owners = {owner_of(spec) for spec in encoder.schema.inputs if spec.role != "dense"}
    dense = {spec.name for spec in encoder.schema.with_role("dense")}
    targets = [target.name for target in encoder.targets]
    if (owners, dense) != (set(encoder.lookups), set(encoder.scalers)) or targets != list(encoder.tasks):
        raise ValueError("its parts do not fit together")
