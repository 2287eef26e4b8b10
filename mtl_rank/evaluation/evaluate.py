"""Runs a predictor over labelled rows and measures it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from mtl_rank.config import ProjectConfig
from mtl_rank.data.encoded import EncodedDataset, concat, take
from mtl_rank.data.encoder import EncodedRows
from mtl_rank.data.labels import LabelReader, encode_labels
from mtl_rank.data.prepare import as_polars, example_columns
from mtl_rank.errors import ConfigError, did_you_mean
from mtl_rank.evaluation.baselines import Baseline, check_baselines
from mtl_rank.evaluation.checks import drift
from mtl_rank.evaluation.classes import ClassNumbers, labels_by_output, measure_classes
from mtl_rank.evaluation.columns import (
    IDENTITY,
    cold_columns,
    columns_of_rows,
    gauc_key,
    identities,
    slice_columns,
)
from mtl_rank.evaluation.curves import Curves
from mtl_rank.evaluation.inspect import GateUse, Importance, gate_use, importance
from mtl_rank.evaluation.numbers import Measured, TaskNumbers, baseline_numbers, measure_all
from mtl_rank.evaluation.outcomes import Collector, Doubles, Outcomes, codes_of, days_of, outputs_of
from mtl_rank.evaluation.profile import sampled
from mtl_rank.evaluation.slices import SliceNumbers, cut
from mtl_rank.evaluation.truth import true_values
from mtl_rank.evaluation.windows import EmptyWindow, Window
from mtl_rank.features.repository import FeatureRepository
from mtl_rank.features.retrieval import retrieve
from mtl_rank.features.snapshot import EVENT_TIMESTAMP, snapshot_rows
from mtl_rank.predict import Predictor
from mtl_rank.progress import Reporter

SAMPLE_ROWS = 8_192


@dataclass(frozen=True)
class Question:
    """Which labelled rows to measure, and how much of them is asked.

    rows: a table, or text as `snapshot_rows` takes it. by: columns to slice by, beside those of the run's own
    configuration. draws: of users for the intervals, None = as configured. baselines: measured beside the run.
    insight: look at the importance of inputs and the use of experts too. compared: rows that the inputs of the
    window are compared with, for their drift.
    """

    window: Window
    rows: Any
    by: Sequence[str] = ()
    draws: int | None = None
    baselines: Sequence[Baseline] = ()
    insight: bool = False
    compared: EncodedDataset | None = None


@dataclass(frozen=True)
class Evaluation:
    """Numbers of one window of labelled rows.

    slices: output -> its slices, the worst first. baselines: simpler model -> output -> a few of its numbers.
    coverage: of a scores table, the share of labelled rows with a score. classes: of tasks with more than two of
    them, whose single classes are among `tasks`. rows_without_user: left out of what is measured within users.
    draws: of users, behind the intervals. notes: what else should be known of the rows.
    """

    window: str
    rows: int
    group_key: str
    tasks: tuple[TaskNumbers, ...]
    slices: Mapping[str, tuple[SliceNumbers, ...]] = field(default_factory=dict)
    baselines: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    curves: Mapping[str, Curves] = field(default_factory=dict)
    gates: tuple[GateUse, ...] = ()
    importance: tuple[Importance, ...] = ()
    drift: Mapping[str, float] = field(default_factory=dict)
    coverage: float | None = None
    classes: tuple[ClassNumbers, ...] = ()
    rows_without_user: int = 0
    draws: int = 0
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """What goes into metrics.json: the numbers of the model."""
        return {
            "window": self.window,
            "rows": self.rows,
            "gauc_key": self.group_key,
            "rows_without_user": self.rows_without_user,
            "coverage": self.coverage,
            "draws": self.draws,
            "notes": list(self.notes),
            "tasks": {numbers.name: numbers.as_dict() for numbers in self.tasks},
            "slices": {name: [one.as_dict() for one in found] for name, found in self.slices.items()},
            **({"classes": {one.name: one.as_dict() for one in self.classes}} if self.classes else {}),
        }

    def drawn(self) -> dict[str, Any]:
        """What only a report shows."""
        return {
            "curves": {name: curves.as_dict() for name, curves in self.curves.items()},
            **({"importance": [asdict(one) for one in self.importance]} if self.importance else {}),
            **({"drift": self.drift} if self.drift else {}),
            **({"gates": [asdict(one) for one in self.gates]} if self.gates else {}),
        }


def check_evaluation(config: ProjectConfig, project: Path, repository: FeatureRepository) -> None:
    """Raises MtlRankError for an `evaluation:` section that would fail once the training is done."""
    check_baselines(config.evaluation.baselines)
    columns = columns_of_rows(config.examples, project)
    if config.user_key is not None and config.user_key not in columns:
        raise ConfigError(
            f"user_key: no column {config.user_key!r}; {did_you_mean(config.user_key, columns)}"
        )
    if config.evaluation.by:
        slice_columns(config.evaluation.by, columns, repository)


def evaluate_run(
    predictor: Predictor,
    repository: FeatureRepository,
    project: Path,
    question: Question,
    folder: Path,
    reporter: Reporter,
) -> Evaluation:
    """Retrieve, predict and measure labelled rows. folder: for temporary files.

    Raises DataError when the window has no rows, or labels or columns to slice by are not there.
    """
    outcomes, sample = predict_rows(predictor, repository, project, question, folder, reporter)
    reporter.stage(f"measure {question.window.name}", None)
    options = predictor.config.evaluation
    draws = options.draws if question.draws is None else question.draws
    result = measured(outcomes, question.window.name, draws, predictor.config.fit.seed)
    if not question.insight:
        return result
    return replace(
        result,
        gates=tuple(gate_use(predictor, sample)),
        importance=tuple(importance(predictor, sample, reporter)),
        drift={}
        if question.compared is None
        else drift(predictor.encoder, sampled(question.compared), sample),
    )


def predict_rows(
    predictor: Predictor,
    repository: FeatureRepository,
    project: Path,
    question: Question,
    folder: Path,
    reporter: Reporter,
) -> tuple[Outcomes, EncodedRows]:
    """The predictions and labels that `evaluate_run` measures, and at most 8,192 of the rows, evenly spread.

    They last as long as `folder`.
    """
    config = predictor.config
    group_key = gauc_key(config, repository.schema)
    window = question.window
    by = list(dict.fromkeys([*config.evaluation.by, *question.by]))
    wanted = slice_columns(by, columns_of_rows(question.rows, project), repository)
    # The truth key is only looked up where it is there: another labelled file need not have it.
    truth_key = [config.truth.key] if config.truth is not None else []
    snapshot = snapshot_rows(
        question.rows,
        project,
        [*example_columns(config, repository), group_key, *wanted.of_rows, *truth_key],
        folder / f"{window.name}.parquet",
        defaults=dict.fromkeys(truth_key),
    )
    total = _rows_in(snapshot.path, window)
    if not total:
        raise EmptyWindow(
            f"split {window.name}: no example between {window.start} and {window.end or 'the end'}; "
            f"they run from {snapshot.first} to {snapshot.last}"
        )
    reader, collector = LabelReader(config.tasks), Collector(config, folder)
    sample, stride = [], -(-total // SAMPLE_ROWS)
    reporter.stage(f"evaluate {window.name}", total)
    for batch in retrieve(repository, snapshot, window.start, window.end):
        table = as_polars(pa.Table.from_batches([batch]))
        labels = reader.read(table)
        rows = predictor.encoder.encode(table, with_labels=False)
        logits = predictor.logits(rows)
        chosen = np.arange(-collector.rows % stride, table.height, stride)
        targets = encode_labels(labels[chosen], predictor.encoder.targets)
        sample.append(take(rows, chosen)._replace(labels=targets))
        collector.add(
            labels=labels_by_output(labels, config),
            predictions=predictor.outputs_of(predictor.calibrated(logits)),
            columns={
                "group": table[group_key],
                "time": table[EVENT_TIMESTAMP],
                IDENTITY: identities(table, repository.schema.join_keys),
                **{f"by {name}": table[column] for name, column in wanted.names.items()},
                **{f"by {name}": values for name, values in cold_columns(predictor.encoder, table).items()},
                **{f"truth {key}": table[key] for key in truth_key},
            },
            uncalibrated=_before_calibration(predictor, logits),
            baselines={model.name: predictor.outputs_of(model.logits(rows)) for model in question.baselines},
        )
        reporter.advance(collector.rows)
    outcomes = finish(
        config, group_key, collector, true_values(config, project, collector) if truth_key else {}
    )
    return outcomes, concat(sample)


def finish(
    config: ProjectConfig, group_key: str, collector: Collector, truth: Mapping[str, Doubles]
) -> Outcomes:
    """What a collector holds as Outcomes; it is empty afterwards."""
    users, userless = codes_of(collector.column("group"))
    return Outcomes(
        kinds=outputs_of(config),
        chains=config.products(),
        user_key=group_key,
        labels=collector.arrays("label"),
        predictions=collector.arrays("prediction"),
        users=users,
        days=days_of(collector.column("time")),
        truth=truth,
        uncalibrated=collector.arrays("uncalibrated"),
        baselines=collector.baselines(),
        slices={name.removeprefix("by "): collector.column(name) for name in collector.columns("by ")},
        classes=config.class_columns(),
        userless=userless,
        repeated=collector.rows - collector.column(IDENTITY).n_unique(),
    )


def measured(
    outcomes: Outcomes, window: str, draws: int, seed: int, coverage: float | None = None
) -> Evaluation:
    """Measure predicted rows. draws: of users, for the intervals; 0 = none."""
    cuts = {name: cut(name, values) for name, values in outcomes.slices.items()}
    found = measure_all(outcomes, cuts, draws, seed)
    userless = 0 if outcomes.userless is None else int(outcomes.userless.sum())
    return Evaluation(
        window=window,
        rows=outcomes.rows,
        group_key=outcomes.user_key,
        tasks=tuple(one.numbers for one in found),
        slices={one.numbers.name: one.slices for one in found if one.slices},
        baselines=baseline_numbers(outcomes),
        curves=_curves(found),
        coverage=coverage,
        classes=measure_classes(outcomes),
        rows_without_user=userless,
        draws=draws,
        notes=tuple(_notes(outcomes, userless)),
    )


def _notes(outcomes: Outcomes, userless: int) -> Iterator[str]:
    if userless:
        yield (
            f"{userless:,} rows have no {outcomes.user_key}: they are left out of GAUC and of the lists, "
            "and for the intervals each is a user of its own"
        )
    if outcomes.repeated:
        yield f"{outcomes.repeated:,} rows repeat the keys and time of another; each of them is measured"


def _curves(found: Sequence[Measured]) -> dict[str, Curves]:
    return {one.numbers.name: one.curves for one in found if one.curves is not None}


def _before_calibration(predictor: Predictor, logits: Doubles) -> dict[str, Doubles]:
    """Outputs that calibration changes, as they were before."""
    changed = set(predictor.calibration.maps)
    if not changed:
        return {}
    chains = predictor.config.products()
    raw = predictor.outputs_of(logits)
    return {name: values for name, values in raw.items() if changed & set(chains.get(name, (name,)))}


def _rows_in(path: Path, window: Window) -> int:
    rows = pl.scan_parquet(path, glob=False)
    time = pl.col(EVENT_TIMESTAMP)
    if window.start is not None:
        rows = rows.filter(time >= window.start)
    if window.end is not None:
        rows = rows.filter(time < window.end)
    return int(rows.select(pl.len()).collect().item())
