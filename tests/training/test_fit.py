"""Training as a whole: it learns what is there, keeps its best epoch and repeats itself to the last bit."""

import csv
import math
import os
import signal

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from small_task import config_of, encoded, logit, table_of

from mtl_rank.data.encoded import EncodedDataset, concat
from mtl_rank.data.labels import Target
from mtl_rank.nn.zoo import build_network
from mtl_rank.predict import to_batch
from mtl_rank.progress import Silent
from mtl_rank.training.checkpoints import TrainingInterrupted
from mtl_rank.training.fit import fit, prior_logits
from mtl_rank.training.validation import validation_metrics


class Split:
    """One encoded project and a way to train on it."""

    def __init__(self, folder, config, train, valid):
        self.config = config
        self.encoder, self.train, self.valid = encoded(folder, config, train, valid)

    def fit(self, folder, config=None):
        folder.mkdir()
        config = config or self.config
        result = fit(config, self.encoder, self.train, self.valid, folder, Silent())
        return result, load_file(folder / "model.safetensors")

    def measured(self, weights, config=None):
        """Validation numbers of saved weights."""
        config = config or self.config
        network = build_network(config.model, self.encoder.layout, torch.zeros(len(config.tasks))).eval()
        network.load_state_dict(weights)
        rows = concat(list(self.valid.slices(1000)))
        with torch.inference_mode():
            logits = network(to_batch(rows)).numpy().astype(np.float64)
        return validation_metrics(logits, rows.labels.astype(np.float64), self.encoder.targets)


def history_of(folder):
    with (folder / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if row["loss/ctr"]], [row for row in rows if row["valid/ne"]]


def without_times(folder):
    times = {"seconds", "rows_per_second"}
    return [[{k: v for k, v in row.items() if k not in times} for row in part] for part in history_of(folder)]


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    config = config_of()
    return Split(tmp_path_factory.mktemp("split"), config, table_of(3000, seed=1), table_of(600, seed=2))


@pytest.fixture(scope="module")
def trained(split, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    config = config_of(fit={"epochs": 5})
    return folder, *split.fit(folder, config)


def test_what_the_labels_follow_from_is_learned(trained):
    _, result, _ = trained
    # A fifth of the clicks that should be are not, at random: an AUC of 0.85 is all there is.
    assert 0.82 < result.valid["valid/ctr/auc"] < 0.87
    assert result.valid["valid/cvr/auc"] > 0.9
    assert result.valid["valid/dwell/nmse"] < 0.3
    assert 0.9 < result.valid["valid/ctr/calibration"] < 1.1


def test_the_saved_weights_are_those_of_the_best_epoch(split, trained):
    folder, result, weights = trained
    steps, epochs = history_of(folder)
    losses = [float(row["valid/ne"]) for row in epochs]
    assert len(losses) == result.epochs
    assert result.best_epoch == int(np.argmin(losses))
    assert result.valid["valid/ne"] == min(losses)
    measured = split.measured(weights)
    assert measured.keys() == result.valid.keys()
    for name, value in result.valid.items():
        assert measured[name] == pytest.approx(value, rel=1e-5)
    assert {row["epoch"] for row in steps} == {str(epoch) for epoch in range(result.epochs)}


def test_history_tells_raw_losses_lambdas_and_shares(trained):
    folder, _, _ = trained
    steps, _ = history_of(folder)
    for row in steps:
        pulls = {
            name: float(row[f"lambda/{name}"]) * float(row[f"loss/{name}"])
            for name in ("ctr", "cvr", "dwell")
        }
        for name, pull in pulls.items():
            assert float(row[f"share/{name}"]) == pytest.approx(pull / sum(pulls.values()), rel=1e-4)
    assert float(steps[-1]["loss/ctr"]) < float(steps[0]["loss/ctr"])


@pytest.mark.parametrize("method", ["manual", "loss_scale", "uncertainty"])
def test_one_seed_gives_equal_weights_to_the_last_bit(split, tmp_path, method):
    config = config_of(weighting={"method": method}, model={"dropout": 0.3})
    first, weights = split.fit(tmp_path / "first", config)
    torch.rand(7)
    second, again = split.fit(tmp_path / "second", config)
    assert weights.keys() == again.keys()
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert first.valid == second.valid
    assert without_times(tmp_path / "first") == without_times(tmp_path / "second")
    _, other = split.fit(tmp_path / "other", config_of(weighting={"method": method}, fit={"seed": 8}))
    assert not all(torch.equal(weights[name], other[name]) for name in weights)


class Stops(Silent):
    """Presses Ctrl-C when told for the `number`-th time how far an epoch is."""

    def __init__(self, number):
        self.left = number

    def advance(self, done, note=""):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)


STOPS = [
    ("adagrad", [1], {}),
    ("adam", [2], {}),
    ("adam", [3], {}),
    ("adagrad", [1, 2], {}),
    ("adagrad", [1], {"schedule": "restarts", "warmup_steps": 20}),
]


@pytest.mark.parametrize(("rule", "stops", "schedule"), STOPS)
def test_an_interrupted_training_ends_in_the_same_weights(split, tmp_path, rule, stops, schedule):
    """Stopped within an epoch (odd: after step 50 of 94) or at its end, once or twice, a line of history cut off."""
    config = config_of(
        fit={
            "batch_size": 32,
            "clip_norm": 1.0,
            "embedding_optimizer": rule,
            "schedule": "constant",
            **schedule,
        },
        model={"dropout": 0.3},
        weighting={"method": "loss_scale"},
    )
    whole, expected = split.fit(tmp_path / "whole", config)
    folder = tmp_path / "stopped"
    folder.mkdir()
    for number in stops:
        with pytest.raises(TrainingInterrupted):
            fit(config, split.encoder, split.train, split.valid, folder, Stops(number))
        with (folder / "history.csv").open("a") as file:
            file.write("1,12")
    result = fit(config, split.encoder, split.train, split.valid, folder, Silent())
    weights = load_file(folder / "model.safetensors")
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert (result.valid, result.best_epoch, result.epochs) == (whole.valid, whole.best_epoch, whole.epochs)
    assert without_times(folder) == without_times(tmp_path / "whole")
    assert result.seconds >= float(history_of(folder)[1][-1]["seconds"])


class StopsAtTheEnd(Silent):
    """Presses Ctrl-C when the numbers of an epoch are told."""

    def __init__(self, epoch):
        self.epoch = epoch

    def say(self, text):
        if text.startswith(f"epoch {self.epoch}:"):
            os.kill(os.getpid(), signal.SIGINT)


def test_control_c_in_the_epoch_that_turns_out_to_be_the_last_is_heard(split, tmp_path):
    config = config_of(fit={"epochs": 30, "patience": 1, "lr": 0.3})
    whole, expected = split.fit(tmp_path / "whole", config)
    assert whole.epochs < 30
    folder = tmp_path / "stopped"
    folder.mkdir()
    with pytest.raises(TrainingInterrupted):
        fit(config, split.encoder, split.train, split.valid, folder, StopsAtTheEnd(whole.epochs))
    result = fit(config, split.encoder, split.train, split.valid, folder, Silent())
    weights = load_file(folder / "model.safetensors")
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert (result.valid, result.best_epoch, result.epochs) == (whole.valid, whole.best_epoch, whole.epochs)


@pytest.mark.parametrize("method", ["gradnorm", "dwa", "pcgrad"])
def test_lambdas_continue_where_they_were_interrupted(split, tmp_path, method):
    config = config_of(fit={"epochs": 3}, model={"dropout": 0.3}, weighting={"method": method})
    _, expected = split.fit(tmp_path / "whole", config)
    folder = tmp_path / "stopped"
    folder.mkdir()
    for number in (1, 2):
        with pytest.raises(TrainingInterrupted):
            fit(config, split.encoder, split.train, split.valid, folder, Stops(number))
    fit(config, split.encoder, split.train, split.valid, folder, Silent())
    weights = load_file(folder / "model.safetensors")
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert without_times(folder) == without_times(tmp_path / "whole")


def test_training_stops_when_patience_epochs_brought_nothing(tmp_path):
    """Labels that are noise: the training rows are learned by heart and validation gets worse."""
    config = config_of(
        tasks={"ctr": {"label": "clicked"}},
        fit={"epochs": 40, "patience": 3, "lr": 0.05, "embedding_lr": 0.5},
        model={"name": "dnn", "bottom_layers": [32], "dropout": 0.0},
    )
    noise = Split(tmp_path / "split", config, table_of(400, 1, noise=0.5), table_of(400, 2, noise=0.5))
    result, weights = noise.fit(tmp_path / "run")
    _, epochs = history_of(tmp_path / "run")
    losses = [float(row["valid/ne"]) for row in epochs]
    assert len(losses) == result.epochs == result.best_epoch + 1 + 3 < 40
    assert min(losses) == losses[result.best_epoch] == result.valid["valid/ne"]
    assert noise.measured(weights)["valid/ne"] == pytest.approx(min(losses), rel=1e-5)


def test_the_monitored_metric_may_be_one_where_higher_is_better(split, tmp_path):
    config = config_of(fit={"epochs": 3, "monitor": "valid/cvr/auc"})
    result, _ = split.fit(tmp_path / "run", config)
    _, epochs = history_of(tmp_path / "run")
    found = [float(row["valid/cvr/auc"]) for row in epochs]
    assert result.best_epoch == int(np.argmax(found))
    assert result.valid["valid/cvr/auc"] == max(found)


def test_the_monitored_mean_may_weigh_tasks(split, tmp_path):
    config = config_of(fit={"epochs": 3, "monitor_weights": {"ctr": 4, "dwell": 0}})
    result, _ = split.fit(tmp_path / "run", config)
    _, epochs = history_of(tmp_path / "run")
    found = [(4 * float(row["valid/ctr/ne"]) + float(row["valid/cvr/ne"])) / 5 for row in epochs]
    assert [float(row["valid/ne"]) for row in epochs] == pytest.approx(found)
    assert result.best_epoch == int(np.argmin(found))


class Notes(Silent):
    """Keeps what stands behind the progress bar."""

    def __init__(self):
        self.notes = []

    def advance(self, done, note=""):
        self.notes.append(note)


def test_the_progress_line_shows_what_the_history_keeps(split, tmp_path):
    notes = Notes()
    config = config_of(fit={"epochs": 1}, weighting={"lambdas": {"cvr": 0.5}})
    fit(config, split.encoder, split.train, split.valid, tmp_path, notes)
    row = history_of(tmp_path)[0][-1]
    for name in ("ctr", "cvr", "dwell"):
        loss, factor, share = (float(row[f"{kind}/{name}"]) for kind in ("loss", "lambda", "share"))
        assert f"{name} {loss:.4f} x {factor:.3g} ({share:.0%})" in notes.notes[-1]


@pytest.mark.parametrize("name", ["dnn", "shared_bottom", "mmoe"])
def test_every_model_trains_on_one_task_and_on_batches_of_any_size(split, tmp_path, name):
    config = config_of(
        tasks={"ctr": {"label": "clicked"}}, model={"name": name}, fit={"epochs": 1, "batch_size": 1499}
    )
    single = Split(tmp_path / "split", config, table_of(1500, 1), table_of(100, 2))
    result, _ = single.fit(tmp_path / "run")
    assert all(math.isfinite(value) for value in result.valid.values())
    assert result.batch_size == 1499


def test_users_that_training_never_met_keep_their_rows(split, trained):
    """The rows for unseen values are touched by no training row and stay at zero."""
    _, _, weights = trained
    tables = [value for name, value in weights.items() if name.startswith("embeddings.")]
    user = next(column for column in split.encoder.layout.ids if column.name == "user")
    assert tables[user.table][user.offset + 1].tolist() == [0.0] * 4
    assert tables[user.table][user.offset].abs().sum() > 0


def test_outputs_start_at_the_base_rates():
    def target(kind, mean):
        return Target("t", "y", kind, "none", None, mean, 2.0, 100, 50)

    found = prior_logits((target("binary", 0.01), target("regression", 7.0), target("binary", 0.8)))
    assert found.tolist() == pytest.approx([logit(0.01), 0, logit(0.8)], rel=1e-5)


def test_predictions_are_calibrated_though_most_negatives_were_left_out(tmp_path):
    """A twelfth of the rows is positive; without the correction predictions would be several times too high."""
    rare = table_of(12_000, seed=1).with_columns(
        clicked=pl.col("clicked") * (pl.int_range(pl.len()) % 6 == 0)
    )
    test = table_of(3_000, seed=2).with_columns(clicked=pl.col("clicked") * (pl.int_range(pl.len()) % 6 == 0))
    config = config_of(tasks={"ctr": {"label": "clicked"}}, fit={"negatives": {"task": "ctr", "keep": 0.2}})
    result, _ = Split(tmp_path / "data", config, rare, test).fit(tmp_path / "run")
    assert 0.85 < result.valid["valid/ctr/calibration"] < 1.15
    whole = config_of(tasks={"ctr": {"label": "clicked"}})
    reference, _ = Split(tmp_path / "all", whole, rare, test).fit(tmp_path / "reference")
    assert result.valid["valid/ctr/auc"] > reference.valid["valid/ctr/auc"] - 0.02


def test_rows_of_weight_zero_are_as_if_they_were_not_there(tmp_path):
    """Half of the rows are wrong and weigh nothing."""
    table = table_of(4_000, seed=1)
    wrong = table.with_columns(clicked=1 - pl.col("clicked"))
    split = Split(tmp_path / "data", config_of(), pl.concat([table, wrong]), table_of(600, seed=2))
    weights = np.repeat(np.float32([1, 0]), len(table))
    split.train = EncodedDataset(split.train.rows, split.train.arrays._replace(weights=weights))
    result, _ = split.fit(tmp_path / "run")
    assert 0.8 < result.valid["valid/ctr/auc"] < 0.87
