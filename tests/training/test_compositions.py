"""Every model of the zoo trains on the small project, keeps its weights and repeats itself."""

import csv
import math

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from small_task import config_of, encoded, table_of

from mtl_rank.data.encoded import concat
from mtl_rank.nn.embedding import Vectors
from mtl_rank.nn.zoo import ZOO, build_network
from mtl_rank.predict import to_batch
from mtl_rank.progress import Silent
from mtl_rank.training.fit import fit
from mtl_rank.training.validation import validation_metrics


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return encoded(
        tmp_path_factory.mktemp("data"), config_of(), table_of(4000, seed=1), table_of(400, seed=2)
    )


def trained(data, folder, **model):
    # Items are wider than the rest: branches that multiply need vectors of their own.
    sizes = {
        "bottom_layers": [32],
        "expert_layers": [32],
        "tower_layers": [],
        "fields": {"embeddings": "independent"},
    }
    config = config_of(model={**sizes, **model}, fit={"epochs": 4})
    folder.mkdir()
    result = fit(config, *data, folder, Silent())
    return config, result, load_file(folder / "model.safetensors")


@pytest.mark.parametrize("name", sorted(ZOO))
def test_every_name_learns_and_its_saved_weights_predict_as_it_did(data, tmp_path, name):
    config, result, weights = trained(data, tmp_path / "run", name=name)
    assert result.valid["valid/ctr/auc"] > 0.75
    assert all(math.isfinite(value) for value in result.valid.values())
    encoder, _, valid = data
    network = build_network(config.model, encoder.layout, torch.zeros(3), config.tasks).eval()
    network.load_state_dict(weights)
    rows = concat(list(valid.slices(1000)))
    with torch.inference_mode():
        logits = network(to_batch(rows)).numpy().astype(np.float64)
    measured = validation_metrics(logits, rows.labels.astype(np.float64), encoder.targets)
    for key, value in result.valid.items():
        assert measured[key] == pytest.approx(value, rel=1e-4), key


@pytest.mark.parametrize("name", sorted(ZOO))
def test_every_name_trains_in_half_precision(data, tmp_path, name):
    config = config_of(
        model={"name": name, "fields": {"embeddings": "independent"}, "activation": "dice"},
        fit={"epochs": 1, "precision": "bf16", "batch_size": 512},
    )
    (tmp_path / "run").mkdir()
    result = fit(config, *data, tmp_path / "run", Silent())
    assert all(math.isfinite(value) for value in result.valid.values())


NARROW = {
    "bottom_layers": [33, 7],
    "expert_layers": [33, 6],
    "tower_layers": [5],
    "levels": 2,
    "cin_layers": [5, 3],
    "cross": {"rank": 5},
    "fields": {"embeddings": "independent", "dim": 7},
    "history": {"attention_layers": [7, 3]},
}


@pytest.mark.parametrize("name", sorted(ZOO))
def test_where_in_a_block_a_row_stands_changes_no_bit(data, name):
    """Widths for which kernels add up some rows in another order than others."""
    config = config_of(model={"name": name, **NARROW})
    encoder = data[0]
    torch.manual_seed(3)
    network = build_network(config.model, encoder.layout, torch.zeros(3), config.tasks).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.4)
    table = table_of(4096, seed=9)
    with torch.inference_mode():
        whole = network(to_batch(encoder.encode(table)))
        for shift in (1, 3, 17):
            turned = pl.concat([table.slice(shift), table.head(shift)])
            found = network(to_batch(encoder.encode(turned)))
            assert torch.equal(found.roll(shift, 0), whole)


@pytest.mark.parametrize("name", ["ple", "aitm", "din", "dien"])
def test_one_seed_gives_equal_weights(data, tmp_path, name):
    _, first, weights = trained(data, tmp_path / "first", name=name)
    _, second, again = trained(data, tmp_path / "second", name=name)
    assert first.valid == second.valid
    assert all(torch.equal(weights[key], again[key]) for key in weights)


def test_the_product_of_esmm_is_calibrated_on_all_rows(data, tmp_path):
    """Its loss is on p_ctr p_cvr over every impression, so the mean of the product is the rate of both."""
    config, _, weights = trained(data, tmp_path / "run", name="esmm")
    encoder, _, valid = data
    network = build_network(config.model, encoder.layout, torch.zeros(3), config.tasks).eval()
    network.load_state_dict(weights)
    rows = concat(list(valid.slices(1000)))
    with torch.inference_mode():
        p = torch.sigmoid(network(to_batch(rows))).numpy()
    both = (rows.labels[:, 0] == 1) & (rows.labels[:, 1] == 1)
    assert (p[:, 0] * p[:, 1]).mean() == pytest.approx(both.mean(), rel=0.2)


@pytest.mark.parametrize("frozen", [True, False])
def test_training_starts_from_given_vectors(data, tmp_path, frozen):
    """Frozen rows end as they began; others were moved by training."""
    encoder = data[0]
    column = next(c for c in encoder.layout.ids if c.name == "item")
    rows = torch.arange(column.offset + 2, column.offset + column.size)
    given = Vectors(
        column.table,
        rows,
        torch.randn(len(rows), 8),
        (column.offset, column.offset + column.size),
        frozen,
    )
    config = config_of(
        model={"name": "din", "pretrained": {"item": {"path": "items.parquet", "frozen": frozen}}}
    )
    (tmp_path / "run").mkdir()
    fit(config, *data, tmp_path / "run", Silent(), vectors=[given])
    weights = load_file(tmp_path / "run" / "model.safetensors")
    found = weights[f"embeddings.tables.{column.table}.weight"]
    assert torch.equal(found[rows], given.values) == frozen
    assert found[column.offset : column.offset + 2].abs().sum() == 0 or not frozen


OPTIONS = {
    "dice and batch norm": {"activation": "dice", "norm": "batch"},
    "residual": {"activation": "silu", "norm": "layer", "residual": True, "bottom_layers": [16, 16]},
    "other start": {"init": "kaiming_uniform", "activation": "prelu", "embedding_dropout": 0.1},
}


@pytest.mark.parametrize("option", OPTIONS)
def test_layer_options_train(data, tmp_path, option):
    _, result, _ = trained(data, tmp_path / "run", name="mmoe", **OPTIONS[option])
    assert result.valid["valid/ctr/auc"] > 0.75


@pytest.mark.parametrize(("name", "levels"), [("mmoe", [2]), ("ple", [4, 4]), ("dnn", [])])
def test_the_history_tells_how_each_task_uses_the_experts(data, tmp_path, name, levels):
    trained(data, tmp_path / "run", name=name, levels=2)
    with (tmp_path / "run" / "history.csv").open(newline="") as file:
        *_, last = [row for row in csv.DictReader(file) if row["valid/ne"]]
    assert len([key for key in last if key.startswith("gate/")]) == 3 * sum(experts + 1 for experts in levels)
    for task in ("ctr", "cvr", "dwell"):
        for level, experts in enumerate(levels, start=1):
            weights = [float(last[f"gate/{task}/{level}/{k}"]) for k in range(1, experts + 1)]
            assert sum(weights) == pytest.approx(1, rel=1e-4)
            assert 0 <= float(last[f"gate/{task}/{level}/entropy"]) <= 1
