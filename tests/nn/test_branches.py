"""Branches recomputed by NumPy from their formulas, with random weights."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from random_inputs import EVEN, LAYOUT, random_batch, randomise
from test_trunks import CLOSE, array, softmax

from mtl_rank.config import Model
from mtl_rank.config.model import CrossOptions, WideOptions
from mtl_rank.errors import ConfigError
from mtl_rank.nn.branch import Inputs
from mtl_rank.nn.cross import Cross, CrossMixture, CrossV2, cross_v2
from mtl_rank.nn.interactions import CIN, FM
from mtl_rank.nn.layout import Layout
from mtl_rank.nn.wide import HashedCrosses, Wide, mixed
from mtl_rank.nn.zoo import build_network, check_model

ROWS, M, DIM = 9, 6, 4
FIELDS = torch.randn(ROWS, M, DIM, generator=torch.Generator().manual_seed(1))
E = torch.randn(ROWS, 7, generator=torch.Generator().manual_seed(2))


def inputs(fields=FIELDS, e=E, batch=None):
    return Inputs(batch, e, fields)


def pairs_of(fields):
    """(B, dim): the products of all pairs, elementwise."""
    return sum(array(fields)[:, i] * array(fields)[:, j] for i, j in combinations(range(fields.shape[1]), 2))


def test_fm_is_the_sum_over_all_pairs():
    output = FM(1, DIM)(inputs())
    assert output.vector is None
    np.testing.assert_allclose(array(output.logits)[:, 0], pairs_of(FIELDS).sum(axis=1), **CLOSE)


def test_fm_starts_alike_for_all_tasks_and_weighs_the_interactions_per_task():
    fm = FM(3, DIM)
    np.testing.assert_allclose(
        array(fm(inputs()).logits), pairs_of(FIELDS).sum(axis=1)[:, None].repeat(3, 1), **CLOSE
    )
    randomise(fm)
    np.testing.assert_allclose(
        array(fm(inputs()).logits), pairs_of(FIELDS) @ array(fm.of_tasks.weight).T, **CLOSE
    )


@pytest.mark.parametrize("layers", [(3,), (5, 2), (4, 3, 2)])
def test_cin_is_weighted_products_of_maps_and_fields_summed_over_the_width(layers):
    cin = randomise(CIN(M, layers))
    x0 = array(FIELDS)
    x, expected = x0, []
    for weight, maps in zip(cin.weights, layers, strict=True):
        w = array(weight).reshape(maps, x.shape[1], M)
        x = np.stack(
            [
                sum(w[h, i, j] * x[:, i] * x0[:, j] for i in range(x.shape[1]) for j in range(M))
                for h in range(maps)
            ],
            axis=1,
        )
        expected.append(x.sum(axis=2))
    output = cin(inputs())
    assert output.logits is None
    assert cin.width == sum(layers)
    np.testing.assert_allclose(array(output.vector), np.concatenate(expected, axis=1), rtol=1e-4, atol=1e-4)


def test_dcn_crosses_by_a_number_per_layer():
    cross = randomise(Cross(7, CrossOptions(layers=3)))
    x0 = x = array(E)
    for w, b in zip(array(cross.weight), array(cross.bias), strict=True):
        x = x0 * (x @ w)[:, None] + b + x
    np.testing.assert_allclose(array(cross(E)), x, **CLOSE)


@pytest.mark.parametrize("rank", [None, 2, 7])
def test_dcn_v2_has_its_bias_inside_the_product(rank):
    cross = randomise(cross_v2(7, CrossOptions(layers=3, rank=rank)))
    assert isinstance(cross, CrossV2)
    x0 = x = array(E)
    for layer in cross.layers:
        if rank is None:
            inner = x @ array(layer.weight).T + array(layer.bias)
        else:
            v, u = layer
            assert array(v.weight).shape == (rank, 7)
            inner = x @ array(v.weight).T @ array(u.weight).T + array(u.bias)
        x = x0 * inner + x
    np.testing.assert_allclose(array(cross(E)), x, rtol=1e-4, atol=1e-4)


def test_the_mixture_of_dcn_v2_gates_low_rank_experts():
    rank, experts = 2, 3
    cross = randomise(cross_v2(7, CrossOptions(layers=2, rank=rank, experts=experts)))
    assert isinstance(cross, CrossMixture)
    x0 = x = array(E)
    for layer in cross.layers:
        v = array(layer.v.weight)
        gates = softmax(x @ v[experts * rank :].T + array(layer.gate_bias))
        total = 0
        for i in range(experts):
            own = slice(i * rank, (i + 1) * rank)
            inner = np.tanh(np.tanh(x @ v[own].T) @ array(layer.c)[i])
            expert = x0 * (inner @ array(layer.u.weight)[:, own].T + array(layer.u.bias))
            total = total + gates[:, [i]] * expert
        x = total + x
    np.testing.assert_allclose(array(cross(E)), x, **CLOSE)


CROSSES = WideOptions(crosses=[("user", "city"), ("item", "age")], buckets=11)


def wide_by_hand(wide, batch, layout, options):
    """Weights looked up one by one: tables, then sequences, then crosses."""
    weights = array(wide.weights.weight)
    shift = [sum(layout.rows[: column.table]) for column in layout.ids]
    after_tables = sum(layout.rows)
    expected = array(batch.dense) @ array(wide.of_numbers.weight).T
    crosses = HashedCrosses(layout, options)(batch) if options.crosses else torch.zeros(len(batch.ids), 0)
    for row in range(len(batch.ids)):
        for offset, index in zip(shift, batch.ids[row].tolist(), strict=True):
            expected[row] += weights[offset + index]
        start = after_tables
        for column, ids in zip(layout.sequences, batch.sequences, strict=True):
            there = [i for i in ids[row].tolist() if i != column.pad_id]
            for index in there:
                expected[row] += weights[start + index - column.offset] / len(there)
            start += column.size
        for number in crosses[row].tolist():
            expected[row] += weights[start + int(number)]
    return expected


@pytest.mark.parametrize("options", [WideOptions(), CROSSES])
@pytest.mark.parametrize("tasks", [1, 3])
def test_wide_is_a_weight_per_id_share_of_a_history_cross_and_number(options, tasks):
    batch = random_batch(30)
    wide = randomise(Wide(LAYOUT, tasks, options))
    found = wide(inputs(batch=batch)).logits
    assert found.shape == (30, tasks)
    np.testing.assert_allclose(array(found), wide_by_hand(wide, batch, LAYOUT, options), **CLOSE)


def test_wide_weights_start_at_zero_and_their_gradient_names_rows_of_the_batch_only():
    wide = Wide(LAYOUT, 2, CROSSES)
    batch = random_batch(4)
    logits = wide(inputs(batch=batch)).logits
    assert (logits == 0).all()
    logits.sum().backward()
    gradient = wide.weights.weight.grad
    assert gradient.is_sparse
    named = gradient.coalesce().indices()[0]
    assert len(named) <= 4 * (len(LAYOUT.ids) + 5 + 2 + 2)
    assert len(named) < len(wide.weights.weight)


def test_crosses_are_the_hashes_of_both_values_and_stay_apart():
    """Recomputed with Python's whole numbers; the same pair lands in the same bucket, crosses in their own."""
    batch = random_batch(200)
    found = HashedCrosses(LAYOUT, CROSSES)(batch)
    user, city, age, item = (batch.ids - torch.tensor([0, 5, 9, 0])).unbind(1)
    for column, (first, second) in enumerate([(user, city), (item, age)]):
        expected = [
            splitmix(splitmix(a) + b) % 11 + 11 * column
            for a, b in zip(first.tolist(), second.tolist(), strict=True)
        ]
        assert found[:, column].tolist() == expected
    assert len(set(found[:, 0].tolist())) > 6


def splitmix(x):
    mask = 2**64 - 1
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return (x ^ (x >> 31)) & (2**63 - 1)


def test_hashing_spreads_evenly():
    buckets = mixed(torch.arange(100_000)).remainder(100)
    counts = torch.bincount(buckets, minlength=100).double()
    assert (counts / 1000 - 1).abs().max() < 0.15


def network_of(name="dnn", tasks=1, layout=EVEN, **options):
    model = Model(name=name, dim=3, bottom_layers=(5,), tower_layers=(), dropout=0, **options)
    return randomise(build_network(model, layout, torch.zeros(tasks))).eval()


def deep_of(network, batch):
    return array(network.heads.hidden(network.trunk(network.represent(batch))))


def test_deepfm_is_the_sum_of_its_three_parts():
    """z = w_0 + sum w_i x_i + 1/2 [(sum x_i v_i)^2 - sum x_i^2 v_i^2] + z_deep, a number entering as value * v."""
    network = network_of("deepfm")
    batch = random_batch(12)
    table = array(network.embeddings.tables[0].weight)
    fields = [table[batch.ids[:, i].numpy()] for i in range(4)]
    for column, ids in zip(EVEN.sequences, batch.sequences, strict=True):
        there = (ids != column.pad_id).numpy()[:, :, None]
        fields.append((table[ids.numpy()] * there).sum(axis=1) / np.maximum(there.sum(axis=1), 1))
    for i in range(2):
        fields.append(array(batch.dense)[:, [i]] * array(network.fields.of_numbers)[i])
    second = sum((a * b).sum(axis=1) for a, b in combinations(fields, 2))
    first = wide_by_hand(network.branches.branches["wide"], batch, EVEN, WideOptions())[:, 0]
    output = network.heads.output
    deep = deep_of(network, batch)[:, 0] @ array(output.weight)[0, :, 0] + array(output.bias)[0, 0]
    np.testing.assert_allclose(array(network(batch))[:, 0], first + second + deep, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "branch"), [("dcn", "cross"), ("dcn_v2", "cross_v2"), ("xdeepfm", "cin")])
def test_a_branch_vector_joins_the_last_hidden_layer(name, branch):
    network = network_of(name, tasks=2)
    batch = random_batch(12)
    given, _ = network._inputs(batch)
    vector = array(network.branches.branches[branch](given).vector)
    rest = (
        array(network.branches.branches["wide"](given).logits) if "wide" in network.branches.branches else 0
    )
    hidden = deep_of(network, batch)
    heads = network.heads
    for t in range(2):
        w = np.concatenate([array(heads.output.weight)[t, :, 0], array(heads.of_branches.weight)[t]])
        expected = np.concatenate([hidden[:, t], vector], axis=1) @ w + array(heads.output.bias)[t, 0]
        if not np.isscalar(rest):
            expected = expected + rest[:, t]
        np.testing.assert_allclose(array(network(batch))[:, t], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["dcn", "dcn_v2"])
def test_stacked_the_trunk_reads_the_crosses(name):
    network = network_of(name, tasks=2, cross={"stacked": True})
    assert network.branches is None
    batch = random_batch(12)
    crossed = network.stacked(network.represent(batch))
    torch.testing.assert_close(network(batch), network.heads(network.trunk(crossed)))


def test_independent_fields_leave_the_embeddings_of_the_trunk_alone():
    """Any widths of the layout; of a history the mean; missing and unseen rows start at zero."""
    network = network_of(
        "dnn", layout=LAYOUT, branches=["fm"], fields={"embeddings": "independent", "dim": 4}
    )
    batch = random_batch(12)
    given, _ = network._inputs(batch)
    table = array(network.fields.table.weight)
    shift = [sum(LAYOUT.rows[: column.table]) for column in LAYOUT.ids]
    fields = [table[batch.ids[:, i].numpy() + shift[i]] for i in range(4)]
    for column, ids in zip(LAYOUT.sequences, batch.sequences, strict=True):
        there = (ids != column.pad_id).numpy()[:, :, None]
        rows = table[ids.numpy() + sum(LAYOUT.rows[: column.table])]
        fields.append((rows * there).sum(axis=1) / np.maximum(there.sum(axis=1), 1))
    fields += [array(batch.dense)[:, [i]] * array(network.fields.of_numbers)[i] for i in range(2)]
    np.testing.assert_allclose(array(given.fields), np.stack(fields, axis=1), **CLOSE)
    assert network.tables() == [*network.embeddings.parameters(), network.fields.table.weight]


def test_without_sequences_no_branch_reads_them():
    layout = replace(EVEN, sequences=())
    with_none = network_of("xdeepfm", sequences="none")
    batch = random_batch(12)
    without = network_of("xdeepfm", layout=layout)
    torch.testing.assert_close(with_none(batch), without(batch._replace(sequences=())))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"name": "deepfm"},
            r"fm multiplies embeddings of one width, and these are 3 and 4 wide; .*independent",
        ),
        ({"name": "dnn", "branches": ["cin"]}, r"cin multiplies embeddings of one width"),
        (
            {"name": "wide_deep", "wide": {"crosses": [["user", "citty"]]}},
            r"no id input 'citty'; did you mean 'city'",
        ),
        (
            {"name": "mmoe", "wide": {"crosses": [["user", "citty"]]}},
            r"model\.wide\.crosses: there is no wide branch",
        ),
        ({"name": "dcn_v2", "cross": {"experts": 2}}, r"low-rank experts; set model\.cross\.rank too"),
        ({"name": "mmoe", "cross": {"stacked": True}}, r"one cross network can stand .*, there are 0"),
        ({"name": "dcn", "branches": ["cross_v2"], "cross": {"stacked": True}}, r"there are 2"),
        ({"name": "xdeepfm", "cin_layers": []}, r"model\.cin_layers: needs at least one width"),
    ],
)
def test_what_cannot_work_is_refused(options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        check_model(Model(**options), None, LAYOUT)
    assert len(str(caught.value).splitlines()) == 1


def test_wide_of_numbers_alone():
    layout = Layout((), (), (), (), ("age",))
    network = network_of("wide_deep", layout=layout)
    assert torch.isfinite(network(random_batch(5, layout=layout))).all()
