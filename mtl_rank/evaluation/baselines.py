"""Simpler models beside a run, on the same rows and inputs, so that a number means something."""

import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from mtl_rank.config import ProjectConfig
from mtl_rank.data.encoded import EncodedDataset, take
from mtl_rank.data.encoder import BIN_SUFFIX, EncodedRows, FeatureEncoder
from mtl_rank.data.labels import Target
from mtl_rank.errors import ConfigError, did_you_mean
from mtl_rank.evaluation.columns import item_key
from mtl_rank.evaluation.means import corrections, encoded, labels_in_units, overall
from mtl_rank.evaluation.outcomes import Doubles
from mtl_rank.nn.layout import Layout
from mtl_rank.progress import Reporter

NAMES = ("constant", "item_rate", "logistic", "trees")

MOST_ROWS = 1_000_000
"""Baselines are fitted on at most so many training rows, evenly spread."""

PRIOR_ROWS = 20
"""An item's rate counts so many rows of the overall rate beside its own."""

_EPOCHS, _LR, _SMALLEST_BATCH, _LARGEST_BATCH = 5, 0.05, 64, 1024
# Adagrad needs some hundred steps to arrive, however few rows there are.
_STEPS = 400
_BLOCK = 1 << 16
_MOST_CATEGORIES = 254


class Baseline(Protocol):
    """A fitted model.

    logits: (N, T) on the scale of the network's outputs.
    """

    @property
    def name(self) -> str: ...

    def logits(self, rows: EncodedRows) -> Doubles: ...


def check_baselines(names: Sequence[str]) -> None:
    """Raises ConfigError for a name that is none, and for `trees` where scikit-learn is not installed."""
    for name in names:
        if name not in NAMES:
            raise ConfigError(f"baselines: there is no baseline {name!r}; {did_you_mean(name, NAMES)}")
    if "trees" in names and find_spec("sklearn") is None:
        raise ConfigError("baselines: trees needs scikit-learn; pip install scikit-learn")


def fit_baselines(
    names: Sequence[str],
    config: ProjectConfig,
    encoder: FeatureEncoder,
    train: EncodedDataset,
    reporter: Reporter,
) -> list[Baseline]:
    """Fit the named baselines on the training rows. Raises ConfigError as `check_baselines` does."""
    check_baselines(names)
    if not names:
        return []
    reporter.stage("fit baselines", None)
    rows = take(train.arrays, slice(0, None, -(-train.rows // MOST_ROWS)))
    fitted: list[Baseline] = []
    for name in names:
        if name == "constant":
            fitted.append(Constant(encoder.targets, rows))
        elif name == "item_rate":
            key = item_key(config, encoder.schema)
            columns = [i for i, column in enumerate(encoder.layout.ids) if column.name == key]
            if key is not None and columns:
                fitted.append(Rate(key, columns[0], encoder, rows))
        elif name == "logistic":
            fitted.append(Logistic(encoder, rows, config.fit.seed))
        else:
            fitted.append(Trees(encoder, rows, config.fit.seed))
    return fitted


class Constant:
    """The rate of the training rows; of a regression task their mean, in the label's unit."""

    name = "constant"

    def __init__(self, targets: tuple[Target, ...], rows: EncodedRows) -> None:
        values = labels_in_units(rows, targets)
        means = [overall(target, values[:, i]) for i, target in enumerate(targets)]
        self._row = np.array([encoded(*pair) for pair in zip(targets, means, strict=True)])

    def logits(self, rows: EncodedRows) -> Doubles:
        return np.tile(self._row, (len(rows.ids), 1))


class Rate:
    """The rate or mean of each item in training, drawn towards the overall one: (sum of y + 20 rate) / (n + 20)."""

    def __init__(self, key: str, column: int, encoder: FeatureEncoder, rows: EncodedRows) -> None:
        self.name = f"rate per {key}"
        self._column = column
        self._offset = encoder.layout.ids[column].offset
        size = encoder.layout.ids[column].size
        codes = rows.ids[:, column] - self._offset
        self._table = np.empty((size, len(encoder.targets)))
        values = labels_in_units(rows, encoder.targets)
        for i, target in enumerate(encoder.targets):
            y = values[:, i]
            defined = ~np.isnan(y)
            count = np.bincount(codes[defined], minlength=size)
            total = np.bincount(codes[defined], y[defined], minlength=size)
            means = (total + PRIOR_ROWS * overall(target, y)) / (count + PRIOR_ROWS)
            self._table[:, i] = encoded(target, means)

    def logits(self, rows: EncodedRows) -> Doubles:
        return self._table[rows.ids[:, self._column] - self._offset]


class Logistic:
    """Logistic (for values linear) regression on the inputs of the network: a weight per id, per bin, per number.

    Lists count as the mean of their ids' weights. Five passes of Adagrad. Logarithms of labels are fitted as they
    are for the network, see `corrections` for what then makes the prediction a mean.
    """

    name = "logistic regression"

    def __init__(self, encoder: FeatureEncoder, rows: EncodedRows, seed: int) -> None:
        self._layout = encoder.layout
        # A regression label is standardised: its mean is 0.
        start = [float(encoded(t, t.mean)) if t.kind == "binary" else 0.0 for t in encoder.targets]
        self._weights = _LinearModel(encoder.layout, torch.tensor(start))
        self._corrections: Doubles = np.zeros(len(start))
        binary = torch.tensor([target.kind == "binary" for target in encoder.targets])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse invariant checks")
            self._fit(rows, binary, seed)
        self._corrections = corrections(encoder.targets, self.logits, rows)

    def _fit(self, rows: EncodedRows, binary: Tensor, seed: int) -> None:
        optimizer = torch.optim.Adagrad(self._weights.parameters(), lr=_LR)
        generator = np.random.default_rng(seed)
        batch = int(np.clip(len(rows.ids) * _EPOCHS // _STEPS, _SMALLEST_BATCH, _LARGEST_BATCH))
        for _ in range(_EPOCHS):
            order = generator.permutation(len(rows.ids))
            for start in range(0, len(order), batch):
                part = take(rows, np.sort(order[start : start + batch]))
                optimizer.zero_grad()
                loss = _linear_loss(self._weights(part), torch.from_numpy(part.labels), binary)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()

    @torch.inference_mode()
    def logits(self, rows: EncodedRows) -> Doubles:
        blocks = [slice(start, start + _BLOCK) for start in range(0, len(rows.ids), _BLOCK)]
        found = [self._weights(take(rows, block)).double().numpy() for block in blocks]
        return np.concatenate([*found, np.empty((0, len(self._corrections)))]) + self._corrections


class Trees:
    """Gradient-boosted trees (scikit-learn) on the numbers and the ids with at most 254 values."""

    name = "gradient-boosted trees"

    def __init__(self, encoder: FeatureEncoder, rows: EncodedRows, seed: int) -> None:
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        self._columns = [
            (i, column.offset)
            for i, column in enumerate(encoder.layout.ids)
            if not column.name.endswith(BIN_SUFFIX) and column.size <= _MOST_CATEGORIES
        ]
        design = self._design(rows)
        is_id = np.arange(design.shape[1]) < len(self._columns)
        self._kinds = [target.kind for target in encoder.targets]
        self._models = []
        for i, kind in enumerate(self._kinds):
            maker = HistGradientBoostingClassifier if kind == "binary" else HistGradientBoostingRegressor
            model = maker(
                learning_rate=0.05,
                max_leaf_nodes=15,
                l2_regularization=1.0,
                categorical_features=is_id,
                early_stopping=True,
                random_state=seed,
            )
            defined = ~np.isnan(rows.labels[:, i])
            self._models.append(model.fit(design[defined], rows.labels[defined, i]))
        self._corrections: Doubles = np.zeros(len(self._kinds))
        self._corrections = corrections(encoder.targets, self.logits, rows)

    def logits(self, rows: EncodedRows) -> Doubles:
        design = self._design(rows)
        columns = [
            model.decision_function(design) if kind == "binary" else model.predict(design)
            for model, kind in zip(self._models, self._kinds, strict=True)
        ]
        return np.column_stack(columns).astype(np.float64) + self._corrections

    def _design(self, rows: EncodedRows) -> Doubles:
        ids = [rows.ids[:, i] - offset for i, offset in self._columns]
        return np.column_stack([*ids, rows.dense]).astype(np.float64)


class _LinearModel(nn.Module):
    """Shape: rows of N -> (N, T)"""

    def __init__(self, layout: Layout, prior: Tensor) -> None:
        super().__init__()
        bases = np.cumsum([0, *layout.rows])
        self._id_bases = bases[[column.table for column in layout.ids]].astype(np.int64)
        # Lists have weights of their own beside those of the ids whose vocabulary they share.
        ends = np.cumsum([bases[-1], *(column.size for column in layout.sequences)])
        self._lists = [
            (int(base) - column.offset, column.pad_id)
            for base, column in zip(ends, layout.sequences, strict=False)
        ]
        self.ids = nn.EmbeddingBag(int(ends[-1]), len(prior), mode="sum", sparse=True)
        self.dense = nn.Linear(len(layout.dense), len(prior))
        with torch.no_grad():
            self.ids.weight.zero_()
            self.dense.weight.zero_()
            self.dense.bias.copy_(prior)

    def forward(self, rows: EncodedRows) -> Tensor:
        ids, counted = [rows.ids + self._id_bases], [np.ones(rows.ids.shape, np.float32)]
        for sequence, (base, pad) in zip(rows.sequences, self._lists, strict=True):
            present = sequence != pad
            ids.append(sequence.astype(np.int64) + base)
            counted.append((present / np.maximum(present.sum(axis=1, keepdims=True), 1)).astype(np.float32))
        weights = torch.from_numpy(np.concatenate(counted, axis=1))
        summed: Tensor = self.ids(torch.from_numpy(np.concatenate(ids, axis=1)), per_sample_weights=weights)
        dense: Tensor = self.dense(torch.from_numpy(np.array(rows.dense, order="C")))
        return summed + dense


def _linear_loss(logits: Tensor, labels: Tensor, binary: Tensor) -> Tensor:
    defined = ~torch.isnan(labels)
    y = torch.where(defined, labels, 0)
    entropy = nn.functional.binary_cross_entropy_with_logits(logits, y.clamp(0, 1), reduction="none")
    loss = torch.where(binary, entropy, (logits - y) ** 2 / 2)
    return torch.where(defined, loss, 0).sum() / len(labels)
