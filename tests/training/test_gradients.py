"""The Gramian of the tasks' gradients: against gradients taken one by one, over several processes, in the history."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lambdas_of_a_process import TASKS, lambdas_of, network_of
from random_inputs import LAYOUT, random_batch, rows_of
from small_task import config_of, encoded, table_of

from mtl_rank.errors import ConfigError
from mtl_rank.progress import Silent
from mtl_rank.training.fit import fit
from mtl_rank.training.gradients import SharedGradients, cosines
from mtl_rank.training.losses import TaskLosses
from mtl_rank.training.weighting import build_weighting


def whole_gradients(network, losses, shared):
    """(T, n) by one backward pass per task over the whole network."""
    rows = []
    for loss in losses:
        network.zero_grad()
        loss.backward(retain_graph=True)
        rows.append(torch.cat([p.grad.to_dense().flatten() for p in shared]))
    network.zero_grad()
    return torch.stack(rows).double()


@pytest.mark.parametrize("name", ["dnn", "shared_bottom", "mmoe", "wide_deep", "xdeepfm"])
def test_of_parameters_it_is_that_of_whole_backward_passes(name):
    network, batch = network_of(name), random_batch(40, seed=2)
    watched = SharedGradients(network, "parameters")
    losses = TaskLosses(TASKS)(network(batch), batch.labels)
    found = watched.gramian(losses)
    assert all(p.grad is None for p in network.parameters())
    heads = {id(p) for p in network.heads.parameters()}
    g = whole_gradients(network, losses, [p for p in network.parameters() if id(p) not in heads])
    torch.testing.assert_close(found.double(), g @ g.T, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["dnn", "shared_bottom", "mmoe", "deepfm"])
def test_of_embeddings_it_is_that_of_what_the_tables_gave(name):
    """With a table row for each value of the batch, gradients of rows are gradients of what was looked up."""
    network, batch = network_of(name), random_batch(1, seed=5)
    batch = batch._replace(
        sequences=tuple(
            torch.full_like(s, c.pad_id) for s, c in zip(batch.sequences, LAYOUT.sequences, strict=True)
        )
    )
    watched = SharedGradients(network, "embeddings")
    losses = TaskLosses(TASKS)(network(batch), batch.labels)
    found = watched.gramian(losses)
    tables = [m.weight for m in network.modules() if isinstance(m, torch.nn.Embedding)]
    g = whole_gradients(network, losses, tables)
    torch.testing.assert_close(found.double(), g @ g.T, rtol=1e-4, atol=1e-9)


def test_of_embeddings_each_row_has_its_own_gradient():
    """Summed over examples: twice the same example with opposite labels does not cancel out."""
    network, batch = network_of("shared_bottom"), random_batch(1, seed=1)
    twice = rows_of(batch, torch.tensor([0, 0]))._replace(labels=torch.tensor([[0.0, 1.0], [1.0, 1.0]]))
    watched = SharedGradients(network, "embeddings")
    gramian = watched.gramian(TaskLosses(TASKS)(network(twice), twice.labels))
    parts = []
    for i in range(2):
        row = rows_of(twice, torch.tensor([i]))
        parts.append(watched.gramian(TaskLosses(TASKS)(network(row), row.labels)))
    torch.testing.assert_close(gramian, (parts[0] + parts[1]) / 4)


def test_a_task_without_rows_has_no_gradient():
    network, batch = network_of("mmoe"), random_batch(9)
    batch.labels[:, 1] = float("nan")
    for of in ("embeddings", "parameters"):
        gramian = SharedGradients(network, of).gramian(TaskLosses(TASKS)(network(batch), batch.labels))
        assert gramian[0, 0] > 0
        assert gramian[1].tolist() == [0, 0]
        assert cosines(gramian)[0, 1] == 0


def test_two_processes_agree_on_the_lambdas_of_one(tmp_path):
    script = Path(__file__).with_name("lambdas_of_a_process.py")
    running = [subprocess.Popen([sys.executable, script, tmp_path, str(rank), "2"]) for rank in range(2)]
    assert [process.wait(timeout=300) for process in running] == [0, 0]
    first, second = (json.loads((tmp_path / f"2-{rank}.json").read_text()) for rank in range(2))
    assert first == second
    for name, expected in lambdas_of(0, 1).items():
        assert first[name] == pytest.approx(expected, rel=1e-4, abs=1e-5), name


def columns(folder):
    with (folder / "history.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["loss/ctr"]]


@pytest.mark.parametrize("of", ["embeddings", "parameters"])
def test_gradients_in_the_history_change_nothing_else(tmp_path, of):
    found = {}
    for log in (False, True):
        config = config_of(
            weighting={"log_gradients": log, "gradients": of}, model={"dropout": 0.3}, fit={"epochs": 1}
        )
        folder = tmp_path / str(log)
        encoder, train, valid = encoded(folder, config, table_of(1500, 1), table_of(300, 2))
        fit(config, encoder, train, valid, folder, Silent())
        found[log] = columns(folder), (folder / "model.safetensors").read_bytes()
    assert found[True][1] == found[False][1]
    with_gradients = found[True][0]
    for row in with_gradients:
        assert all(float(row[f"gradient/{name}"]) > 0 for name in ("ctr", "cvr", "dwell"))
        assert all(
            -1.0001 <= float(row[f"cosine/{pair}"]) <= 1.0001
            for pair in ("ctr/cvr", "ctr/dwell", "cvr/dwell")
        )
    assert not any("gradient" in name or "cosine" in name for name in found[False][0][0])


@pytest.mark.parametrize("method", ["gradnorm", "famo", "upgrad"])
def test_a_network_learns_under_it(tmp_path, method):
    config = config_of(weighting={"method": method}, fit={"epochs": 6})
    encoder, train, valid = encoded(tmp_path, config, table_of(3000, 1), table_of(600, 2))
    result = fit(config, encoder, train, valid, tmp_path, Silent())
    assert result.valid["valid/ctr/auc"] > 0.8
    assert result.valid["valid/cvr/auc"] > 0.9
    assert result.valid["valid/dwell/nmse"] < 0.3
    lambdas = {tuple(row[f"lambda/{name}"] for name in ("ctr", "cvr", "dwell")) for row in columns(tmp_path)}
    assert len(lambdas) > 1


@pytest.mark.parametrize("method", ["pcgrad", "gradnorm", "rlw"])
def test_a_training_repeats_itself_to_the_last_bit(tmp_path, method):
    config = config_of(weighting={"method": method}, model={"dropout": 0.3}, fit={"epochs": 1})
    encoder, train, valid = encoded(tmp_path, config, table_of(1000, 1), table_of(300, 2))
    found = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        fit(config, encoder, train, valid, tmp_path / name, Silent())
        found.append((tmp_path / name / "model.safetensors").read_bytes())
        torch.rand(7)
    assert found[0] == found[1]


def test_whole_gradients_are_not_for_several_processes():
    config = config_of(weighting={"method": "upgrad", "gradients": "parameters"}, fit={"devices": 2})
    with pytest.raises(ConfigError, match=r"weighting\.gradients: parameters needs fit\.devices: 1"):
        build_weighting(config, 9)
