"""Predictions of a loaded run: the same to the last bit in whatever chunks, products along the chain."""

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import save_file
from small_task import SCHEMA, config_of, table_of

from mtl_rank.data.datamodule import to_batch
from mtl_rank.data.fitting import fit_encoder
from mtl_rank.data.labels import decode_outputs
from mtl_rank.errors import DataError, RunError
from mtl_rank.nn.zoo import build_network
from mtl_rank.predict import BLOCK_ROWS, Predictor
from mtl_rank.runs import create_run
from mtl_rank.training.precision import Precision

CONFIGS = {
    "mmoe": {"name": "mmoe", "experts": 3, "expert_layers": [24, 16], "tower_layers": [8]},
    "shared_bottom": {"name": "shared_bottom", "bottom_layers": [33, 17], "tower_layers": []},
    "dnn": {"name": "dnn", "bottom_layers": [20], "sequences": "none"},
}


def run_of(folder, config):
    """A run with random weights, which need no training to tell rows apart."""
    encoder = fit_encoder([table_of(300, seed=1)], SCHEMA, config.tasks, config.model.dim)
    with create_run(folder, config) as run:
        encoder.save(run.encoder_folder)
    torch.manual_seed(5)
    network = build_network(config.model, encoder.layout, torch.zeros(len(config.tasks)))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.4)
    save_file(network.state_dict(), run.weights)
    return run, encoder, network.eval()


@pytest.fixture(scope="module", params=sorted(CONFIGS))
def loaded(request, tmp_path_factory):
    run, encoder, network = run_of(
        tmp_path_factory.mktemp(request.param), config_of(model=CONFIGS[request.param])
    )
    return Predictor.load(run), encoder, network


CANDIDATES = table_of(BLOCK_ROWS + 1500, seed=9).drop("clicked", "bought", "seconds")


def test_predictions_are_those_of_encoder_and_network(loaded):
    predictor, encoder, network = loaded
    table = CANDIDATES.head(500)
    with torch.inference_mode():
        logits = network(to_batch(encoder.encode(table, with_labels=False))).numpy().astype(np.float64)
    expected = decode_outputs(logits, encoder.targets)
    found = predictor.predict(table)
    assert list(found) == predictor.outputs == ["ctr", "cvr", "dwell", "ctcvr", "ctr_dwell"]
    for i, name in enumerate(("ctr", "cvr", "dwell")):
        np.testing.assert_allclose(found[name], expected[:, i], rtol=1e-4, atol=1e-6)
        assert found[name].dtype == np.float64
    assert ((found["ctr"] > 0) & (found["ctr"] < 1)).all()
    assert len(set(found["ctr"].tolist())) > 200


@pytest.mark.parametrize("seed", range(3))
def test_chunks_change_no_bit(loaded, seed):
    predictor, _, _ = loaded
    whole = predictor.predict(CANDIDATES)
    borders = np.random.default_rng(seed).integers(0, CANDIDATES.height, 4)
    borders = [0, *sorted(borders.tolist()), CANDIDATES.height]
    parts = [predictor.predict(CANDIDATES[start:stop]) for start, stop in pairwise(borders)]
    for name, values in whole.items():
        assert np.concatenate([part[name] for part in parts]).tobytes() == values.tobytes()


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_in_bf16_chunks_change_no_bit_and_scores_stay_apart(name, tmp_path):
    run, encoder, _ = run_of(tmp_path, config_of(model=CONFIGS[name]))
    exact, rounded = Predictor.load(run, Precision("fp32")), Predictor.load(run, Precision("bf16"))
    rows = encoder.encode(CANDIDATES, with_labels=False)
    logits = rounded.logits(rows)
    parts = [encoder.encode(part, with_labels=False) for part in (CANDIDATES[:1000], CANDIDATES[1000:])]
    assert np.concatenate([rounded.logits(part) for part in parts]).tobytes() == logits.tobytes()
    # Rounded to 8 binary digits within, but not at the end: far fewer rows have equal logits than that would give.
    expected = exact.logits(rows)
    assert 0 < np.abs(logits - expected).max() < 0.05 * np.abs(expected).max()
    for task in range(logits.shape[1]):
        rounded_at_the_end = torch.from_numpy(expected[:, task]).bfloat16().unique()
        assert len(np.unique(logits[:, task])) > 1.2 * len(rounded_at_the_end)


def test_company_and_order_change_no_bit(loaded):
    predictor, _, _ = loaded
    whole = predictor.predict(CANDIDATES)
    order = np.random.default_rng(4).permutation(CANDIDATES.height)
    shuffled = predictor.predict(CANDIDATES[order])
    for i in (0, 1, 17, BLOCK_ROWS, CANDIDATES.height - 1):
        alone = predictor.predict(CANDIDATES[i])
        for name, values in whole.items():
            assert alone[name].tobytes() == values[i : i + 1].tobytes()
    for name, values in whole.items():
        assert shuffled[name].tobytes() == values[order].tobytes()


def test_products_multiply_along_the_chain(tmp_path):
    tasks = {
        "ctr": {"label": "clicked"},
        "cvr": {"label": "bought", "given": "ctr"},
        "amount": {"label": "seconds", "kind": "regression", "given": "cvr"},
    }
    run, _, _ = run_of(tmp_path, config_of(tasks=tasks))
    found = Predictor.load(run).predict(CANDIDATES.head(100))
    np.testing.assert_array_equal(found["ctcvr"], found["ctr"] * found["cvr"])
    np.testing.assert_allclose(
        found["ctcvr_amount"], found["ctr"] * found["cvr"] * found["amount"], rtol=1e-15
    )


def test_nothing_to_predict(loaded):
    predictor, _, _ = loaded
    found = predictor.predict(CANDIDATES.head(0))
    assert {name: values.shape for name, values in found.items()} == dict.fromkeys(predictor.outputs, (0,))


def test_rows_of_which_nothing_is_known_have_finite_predictions(loaded):
    predictor, _, _ = loaded
    nothing = pl.DataFrame({name: [None] * 3 for name in CANDIDATES.columns})
    unseen = pl.DataFrame(
        {"user": [-1], "item": [10**9], "device": ["?"], "price": [1e9], "seen": [[-1, None]]}
    )
    for table in (nothing, unseen):
        for values in predictor.predict(table).values():
            assert np.isfinite(values).all()


def test_tables_that_the_encoder_cannot_read(loaded):
    predictor, _, _ = loaded
    with pytest.raises(DataError, match=r"view\.item: the table has no column 'item'"):
        predictor.predict(CANDIDATES.drop("item"))
    with pytest.raises(DataError, match=r"view\.item: was integer"):
        predictor.predict(CANDIDATES.with_columns(pl.col("item").cast(pl.String)))


def test_damaged_weights_are_a_run_error(tmp_path):
    run, encoder, _ = run_of(tmp_path, config_of())
    content = run.weights.read_bytes()
    for damaged in (content[:-4], content[:20], b""):
        run.weights.write_bytes(damaged)
        with pytest.raises(RunError, match=rf"run {run.id}: .*model\.safetensors cannot be loaded"):
            Predictor.load(run)
    other = build_network(config_of(model={"experts": 5}).model, encoder.layout, torch.zeros(3))
    save_file(other.state_dict(), run.weights)
    with pytest.raises(RunError, match="cannot be loaded") as caught:
        Predictor.load(run)
    assert len(str(caught.value).splitlines()) == 1
    run.weights.unlink()
    with pytest.raises(RunError, match="cannot be loaded"):
        Predictor.load(run)
