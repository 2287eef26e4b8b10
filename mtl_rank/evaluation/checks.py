"""Is the data fit to train on? Leaks, dead views, drift, constants: told before an hour of training, not after."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from mtl_rank.config import ProjectConfig
from mtl_rank.data.encoded import EncodedDataset
from mtl_rank.data.encoder import EncodedRows, FeatureEncoder, owner_of
from mtl_rank.data.vocabulary import FIRST
from mtl_rank.evaluation.columns import gauc_key
from mtl_rank.evaluation.profile import (
    Alone,
    Column,
    alone,
    columns,
    population_stability,
    sampled,
)
from mtl_rank.features.ages import Matches
from mtl_rank.features.schema import FeatureSchema, Input
from mtl_rank.progress import Reporter

LEAK = 0.95
DRIFT = 0.25
MOSTLY_MISSING = 0.95
MOSTLY_UNSEEN = 0.5
RUNNING_COUNT = (0.55, 0.45)
"""AUC over all rows from the first on, within users up to the second: the mark of a running count of the label."""

Kind = Literal["leak", "dead view", "running count", "drift", "constant", "missing", "unseen"]
LOUD: frozenset[Kind] = frozenset({"leak", "dead view", "running count"})


@dataclass(frozen=True)
class Flag:
    """Something to look at. where: the input or view."""

    kind: Kind
    where: str
    text: str

    @property
    def loud(self) -> bool:
        return self.kind in LOUD


@dataclass(frozen=True)
class InputCheck:
    """One input. Rates are shares of rows, None where they cannot be told.

    vocabulary: values with an embedding of their own, or quantile bins. alone: task -> AUC or |Spearman|.
    psi: between the training and the validation rows.
    """

    name: str
    origin: str
    role: str
    vocabulary: int | None
    missing: dict[str, float | None]
    unseen: dict[str, float | None]
    constant: bool
    psi: float | None
    alone: dict[str, float]


@dataclass(frozen=True)
class ViewCheck:
    """One feature view. coverage: by split the share of rows with any value of it; None where it cannot be told.

    matches: of the join itself, where it was looked at.
    """

    name: str
    coverage: dict[str, float | None]
    matches: Matches | None = None


@dataclass(frozen=True)
class DataChecks:
    """What was found; the loud flags first."""

    rows: dict[str, int]
    inputs: tuple[InputCheck, ...]
    views: tuple[ViewCheck, ...]
    flags: tuple[Flag, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def say(self, reporter: Reporter) -> None:
        """The loud flags in full, the others as a number."""
        for flag in self.flags:
            if flag.loud:
                reporter.say(f"{flag.kind.upper()}: {flag.text}")
        others = sum(not flag.loud for flag in self.flags)
        if others:
            reporter.say(f"{others} more notes on the data: mtlrank features --check")


def check_data(
    config: ProjectConfig,
    encoder: FeatureEncoder,
    train: EncodedDataset,
    valid: EncodedDataset,
    ages: Mapping[str, Matches] | None = None,
) -> DataChecks:
    """Look at 200,000 rows of each window at most. ages: of the matched rows, if they were looked up."""
    windows = {"train": sampled(train), "valid": sampled(valid)}
    found = {name: dict(_by_name(encoder, rows)) for name, rows in windows.items()}
    inputs, within = [], {}
    users = _users(config, encoder, windows["train"])
    for spec in encoder.schema.inputs:
        own = {name: found[name][spec.name] for name in windows}
        strengths = dict(_strengths(config, own, windows, users))
        within[spec.name] = strengths
        inputs.append(_check_input(encoder, spec, own, strengths))
    views = _check_views(encoder.schema, found, ages or {})
    flags = [*_view_flags(views), *_input_flags(inputs, within, config, {v.name for v in views if _dead(v)})]
    return DataChecks(
        rows={"train": train.rows, "valid": valid.rows},
        inputs=tuple(inputs),
        views=tuple(views),
        flags=tuple(sorted(flags, key=lambda flag: not flag.loud)),
    )


def drift(encoder: FeatureEncoder, before: EncodedRows, after: EncodedRows) -> dict[str, float]:
    """PSI of each input between two sets of encoded rows, the largest first."""
    then, now = dict(_by_name(encoder, before)), dict(_by_name(encoder, after))
    values = {name: population_stability(column, now[name]) for name, column in then.items()}
    known = {name: round(value, 4) for name, value in values.items() if value is not None}
    return dict(sorted(known.items(), key=lambda item: -item[1]))


def _by_name(encoder: FeatureEncoder, rows: EncodedRows) -> Iterator[tuple[str, Column]]:
    return ((spec.name, column) for spec, column in columns(encoder, rows))


def _users(config: ProjectConfig, encoder: FeatureEncoder, rows: EncodedRows) -> Any:
    """Codes of users with an embedding of their own; all others count as different."""
    key = gauc_key(config, encoder.schema)
    for i, column in enumerate(encoder.layout.ids):
        if column.name == key:
            codes = rows.ids[:, i].astype(np.int64) - column.offset
            return np.where(codes < FIRST, -1 - np.arange(len(codes)), codes)
    return None


def _strengths(
    config: ProjectConfig, own: Mapping[str, Column], windows: Mapping[str, EncodedRows], users: Any
) -> Iterator[tuple[str, Alone]]:
    for i, (name, task) in enumerate(config.tasks.items()):
        labels = (windows["train"].labels[:, i], windows["valid"].labels[:, i])
        found = alone(own["train"], own["valid"], labels, task.kind, users)
        if found is not None:
            yield name, found


def _check_input(
    encoder: FeatureEncoder, spec: Input, own: Mapping[str, Column], strengths: Mapping[str, Alone]
) -> InputCheck:
    lookup = encoder.lookups.get(owner_of(spec))
    size = lookup.size if lookup is not None else encoder.scalers[spec.name].bin_rows
    return InputCheck(
        name=spec.name,
        origin=spec.origin,
        role=spec.role,
        vocabulary=max(0, size - FIRST) or None,
        missing={name: _share(column.missing) for name, column in own.items()},
        unseen={name: column.unseen for name, column in own.items()},
        constant=own["train"].constant,
        psi=population_stability(own["train"], own["valid"]),
        alone={name: round(found.strength, 6) for name, found in strengths.items()},
    )


def _check_views(
    schema: FeatureSchema, found: Mapping[str, Mapping[str, Column]], ages: Mapping[str, Matches]
) -> list[ViewCheck]:
    members: dict[str, list[str]] = {}
    for spec in schema.inputs:
        if "__" in spec.name and spec.origin not in (f"context.{spec.name}", f"entity {spec.name}"):
            members.setdefault(spec.name.split("__")[0], []).append(spec.name)
    return [
        ViewCheck(
            name=view,
            coverage={window: _covered([own[name] for name in names]) for window, own in found.items()},
            matches=ages.get(view),
        )
        for view, names in members.items()
    ]


def _covered(inputs: list[Column]) -> float | None:
    """The share of rows on which any of the inputs has a value."""
    masks = [column.missing for column in inputs if column.missing is not None]
    if len(masks) < len(inputs) or not masks or not len(masks[0]):
        # An input that is never known to be missing covers every row, as far as can be told.
        return None if not masks or not len(masks[0]) else 1.0
    return float(1 - np.logical_and.reduce(masks).mean())


def _dead(view: ViewCheck) -> bool:
    return 0.0 in view.coverage.values() or (view.matches is not None and view.matches.matched == 0)


def _view_flags(views: list[ViewCheck]) -> Iterator[Flag]:
    for view in views:
        if _dead(view):
            where = [window for window, share in view.coverage.items() if share == 0]
            rows = f"of the {' and '.join(where)} window{'s' * (len(where) > 1)} " if where else ""
            text = (
                f"feature view {view.name}: no row {rows}has a match; look at its source, its join keys, the "
                "times of its rows and its ttl"
            )
            yield Flag("dead view", view.name, text)


def _input_flags(
    inputs: list[InputCheck],
    within: Mapping[str, Mapping[str, Alone]],
    config: ProjectConfig,
    dead: set[str],
) -> Iterator[Flag]:
    for one in inputs:
        for task, found in within[one.name].items():
            yield from _strength_flags(one, task, found, config)
        if one.name.split("__")[0] in dead:
            continue
        missing, unseen, rare = one.missing["train"], one.unseen["valid"], one.unseen["train"] == 1
        # That tomorrow's users are others than today's is no news.
        if one.psi is not None and one.psi >= DRIFT and not one.origin.startswith("entity "):
            text = f"{one.origin}: drifts between the training and the validation rows, PSI {one.psi:.2f}"
            yield Flag("drift", one.name, text)
        # Rows without a value, or without one that has an embedding, are alike too, and are no constant.
        if missing is not None and missing > MOSTLY_MISSING:
            yield Flag("missing", one.name, f"{one.origin}: missing on {missing:.1%} of the training rows")
        elif rare:
            text = f"{one.origin}: no value is frequent enough in the training rows to have an embedding"
            yield Flag("unseen", one.name, text)
        elif one.constant:
            yield Flag("constant", one.name, f"{one.origin}: the same on every training row")
        if unseen is not None and unseen > MOSTLY_UNSEEN and not rare:
            text = f"{one.origin}: {unseen:.1%} of the validation rows have a value without an embedding"
            yield Flag("unseen", one.name, text)


def _strength_flags(one: InputCheck, task: str, found: Alone, config: ProjectConfig) -> Iterator[Flag]:
    measure = "AUC" if config.tasks[task].kind == "binary" else "a rank correlation"
    if found.strength >= LEAK:
        text = (
            f"{one.origin}: alone it tells {task} with {measure} of {found.strength:.3f}; "
            "is it known only after the label?"
        )
        yield Flag("leak", one.name, text)
    elif found.within is not None and found.strength >= RUNNING_COUNT[0] and found.within <= RUNNING_COUNT[1]:
        text = (
            f"{one.origin}: tells {task} with AUC {found.strength:.2f} over all rows and {found.within:.2f} within "
            "users, as a running count of the label does; it lifts AUC and spoils GAUC"
        )
        yield Flag("running count", one.name, text)


def _share(mask: Any) -> float | None:
    return float(mask.mean()) if mask is not None and len(mask) else None
