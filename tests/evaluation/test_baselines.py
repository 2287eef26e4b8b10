"""Simpler models: what they must say, computed by hand, and what they must be able to find."""

import sys

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression

from mtl_rank.config import parse_config
from mtl_rank.data.encoded import EncodedDataset
from mtl_rank.data.fitting import fit_encoder
from mtl_rank.data.labels import decode_outputs
from mtl_rank.errors import ConfigError
from mtl_rank.evaluation.baselines import NAMES, PRIOR_ROWS, fit_baselines
from mtl_rank.features.schema import FeatureSchema
from mtl_rank.metrics import auc, rmse
from mtl_rank.progress import Silent

CONFIG = parse_config(
    """
feature_service: s
examples: e.parquet
split: {valid: 2026-01-01, test: 2026-01-02}
tasks:
  ctr: {label: clicked}
  cvr: {label: bought, given: ctr}
  dwell: {label: seconds, kind: regression, given: ctr}
  spent: {label: amount, kind: regression, transform: log1p}
model: {dim: 4}
""",
    "mtlrank.yaml",
)


def spec(name, role, **options):
    return {"name": name, "origin": f"view.{name}", "role": role, "options": {"min_count": 1, **options}}


SCHEMA = FeatureSchema.model_validate(
    {
        "service": "s",
        "join_keys": ["user_id", "item_id"],
        "request_columns": [],
        "inputs": [
            spec("user_id", "categorical"),
            spec("item_id", "categorical"),
            spec("age", "dense", bins=0),
            spec("tags", "bag", max_len=4),
        ],
    }
)


def rows(n, seed):
    rng = np.random.default_rng(seed)
    item, age = rng.integers(0, 12, n), rng.normal(0, 1, n)
    tags = [rng.choice(6, rng.integers(0, 4), replace=False).tolist() for _ in range(n)]
    liked = np.array([sum(t == 5 for t in found) for found in tags])
    logit = np.linspace(-2, 1, 12)[item] + 0.8 * age + 1.2 * liked - 0.5
    clicked = rng.random(n) < 1 / (1 + np.exp(-logit))
    return pl.DataFrame(
        {
            "user_id": rng.integers(0, 50, n),
            "item_id": item,
            "age": age,
            "tags": tags,
            "clicked": clicked.astype(int),
            "bought": [int(rng.random() < 0.3) if c else None for c in clicked],
            "seconds": [
                float(5 + item_ + rng.normal()) if c else None for c, item_ in zip(clicked, item, strict=True)
            ],
            # A long tail: the mean of the logarithms is far below the logarithm of the mean.
            "amount": np.expm1(np.maximum(rng.normal(1 + item / 6, 1.2), 0)),
        },
        schema_overrides={"tags": pl.List(pl.Int64)},
    )


TRAIN, TEST = rows(6_000, 1), rows(2_000, 2)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    encoder = fit_encoder([TRAIN], SCHEMA, CONFIG.tasks, 4)
    data = EncodedDataset.write(tmp_path_factory.mktemp("data"), encoder.layout, 4, [encoder.encode(TRAIN)])
    models = fit_baselines(NAMES, CONFIG, encoder, data, Silent())
    encoded = encoder.encode(TEST)
    return {model.name: model.logits(encoded) for model in models}, encoder


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def test_the_constant_is_the_rate_of_training(fitted):
    logits, _ = fitted
    found = logits["constant"]
    assert (found == found[0]).all()
    assert sigmoid(found[0, :2]) == pytest.approx(
        [TRAIN["clicked"].mean(), TRAIN["bought"].drop_nulls().mean()]
    )
    assert found[0, 2] == 0, "a regression target is standardised"


def test_the_rate_per_item_is_smoothed_towards_all(fitted):
    logits, encoder = fitted
    for i, label in enumerate(("clicked", "bought")):
        overall = TRAIN[label].drop_nulls().mean()
        for item in range(12):
            own = TRAIN.filter(pl.col("item_id") == item)[label].drop_nulls()
            expected = (own.sum() + PRIOR_ROWS * overall) / (len(own) + PRIOR_ROWS)
            rows = (TEST["item_id"] == item).to_numpy()
            found = sigmoid(logits["rate per item_id"][rows, i])
            assert found == pytest.approx(np.full(rows.sum(), expected), rel=1e-5)
    dwell = encoder.targets[2]
    seconds = logits["rate per item_id"][:, 2] * dwell.std + dwell.mean
    assert seconds == pytest.approx(5 + TEST["item_id"].to_numpy(), abs=2)


def test_values_with_a_long_tail_are_predicted_by_their_mean_not_by_that_of_their_logarithms(fitted):
    logits, encoder = fitted
    found = {name: decode_outputs(z, encoder.targets)[:, 3] for name, z in logits.items()}
    amounts = TRAIN["amount"].to_numpy()
    geometric = np.expm1(np.log1p(amounts).mean())
    assert geometric < 0.6 * amounts.mean()
    assert found["constant"] == pytest.approx(np.full(len(TEST), amounts.mean()), rel=1e-4)
    for item in range(12):
        own = TRAIN.filter(pl.col("item_id") == item)["amount"]
        expected = (own.sum() + PRIOR_ROWS * amounts.mean()) / (len(own) + PRIOR_ROWS)
        rows = (TEST["item_id"] == item).to_numpy()
        assert found["rate per item_id"][rows] == pytest.approx(np.full(rows.sum(), expected), rel=1e-4)
    for name in ("logistic regression", "gradient-boosted trees"):
        assert found[name].mean() == pytest.approx(TEST["amount"].mean(), rel=0.08), name
        assert rmse(TEST["amount"], found[name]) < rmse(TEST["amount"], found["constant"]), name


def test_the_regression_comes_near_the_exact_one_and_uses_every_kind_of_input(fitted):
    logits, _ = fitted

    def design(table):
        one_hot = np.eye(12)[table["item_id"].to_numpy()]
        share = [
            [(tags == [] and 0) or sum(t == tag for t in tags) / max(len(tags), 1) for tag in range(6)]
            for tags in table["tags"].to_list()
        ]
        return np.column_stack([one_hot, np.array(share), table["age"]])

    exact = LogisticRegression(max_iter=500).fit(design(TRAIN), TRAIN["clicked"])
    wanted = auc(TEST["clicked"].to_numpy(), exact.decision_function(design(TEST)))
    found = auc(TEST["clicked"].to_numpy(), logits["logistic regression"][:, 0])
    assert found > wanted - 0.01
    assert found > auc(TEST["clicked"].to_numpy(), logits["rate per item_id"][:, 0]) + 0.05


def test_trees_find_what_the_inputs_tell(fitted):
    logits, _ = fitted
    by_trees = auc(TEST["clicked"].to_numpy(), logits["gradient-boosted trees"][:, 0])
    assert by_trees > auc(TEST["clicked"].to_numpy(), logits["rate per item_id"][:, 0]) + 0.03


def test_trees_need_scikit_learn(monkeypatch, fitted):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setattr("mtl_rank.evaluation.baselines.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install scikit-learn"):
        fit_baselines(["trees"], CONFIG, fitted[1], None, Silent())


def test_an_unknown_baseline_is_named():
    with pytest.raises(ConfigError, match="there is no baseline 'logistics'; did you mean 'logistic'"):
        fit_baselines(["logistics"], CONFIG, None, None, Silent())
