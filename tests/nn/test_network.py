"""The network as a whole: a row's logits depend on that row alone, and every weight learns."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_inputs import LAYOUT, WIDTH, random_batch, randomise, rows_of, tables_of, tasks_of

from mtl_rank.config import Model
from mtl_rank.nn.embedding import Embeddings
from mtl_rank.nn.history import masked_mean
from mtl_rank.nn.layout import IdColumn, Layout
from mtl_rank.nn.network import input_width
from mtl_rank.nn.zoo import ZOO, build_network, parts_of

# Every name of the zoo, and compositions of their parts. LAYOUT has two widths: fm and cin have tables of their own.
OWN_FIELDS = {"fields": {"embeddings": "independent", "dim": 3}}
ALL_BRANCHES = {**OWN_FIELDS, "branches": ["wide", "fm", "cross", "cross_v2", "cin"], "cin_layers": [3, 2]}
COMPOSITIONS = {
    **{name: {"name": name, **OWN_FIELDS} for name in sorted(ZOO)},
    "ple of three levels": {"name": "ple", "levels": 3},
    "crosses and low ranks": {
        "name": "wide_deep",
        "wide": {"crosses": [["user", "city"]], "buckets": 3},
        "branches": ["cross_v2"],
        "cross": {"rank": 2},
    },
    "all branches under mmoe": {"name": "mmoe", **ALL_BRANCHES},
    "all branches under aitm": {"name": "aitm", **ALL_BRANCHES},
    "stacked mixture under ple": {
        "name": "ple",
        "branches": ["cross_v2"],
        "cross": {"stacked": True, "rank": 2, "experts": 2},
    },
}
COMPOSITIONS |= {
    "dien under ple with fm": {"name": "ple", "sequences": "dien", "branches": ["fm"], **OWN_FIELDS},
    "two blocks under mmoe": {"name": "mmoe", "sequences": "bst", "history": {"blocks": 2}},
}
MODELS = list(COMPOSITIONS)
WITHOUT_HISTORY = [name for name in MODELS if parts_of(Model(**COMPOSITIONS[name])).sequences == "mean"]
NO_BRANCHES = [name for name in ZOO if not parts_of(Model(name=name)).branches]
TASKS = [1, 5]


def network_of(name, tasks=2, layout=LAYOUT, **options):
    sizes = {
        "experts": 3,
        "expert_layers": (8, 6),
        "bottom_layers": (8, 6),
        "tower_layers": (5,),
        "dropout": 0.0,
    }
    model = Model(**{**COMPOSITIONS[name], **sizes, **options})
    network = build_network(model, layout, torch.zeros(tasks), tasks_of(tasks))
    return randomise(network).eval()


@pytest.mark.parametrize("with_sequences", [True, False])
def test_the_input_vector_is_embeddings_then_histories_then_dense(with_sequences):
    network = network_of("shared_bottom", sequences="mean" if with_sequences else "none")
    batch = random_batch(9)
    tables = [table.detach().numpy() for table in tables_of(network)]
    found = network.represent(batch).detach().numpy()
    for i in range(9):
        parts = [
            tables[column.table][index]
            for column, index in zip(LAYOUT.ids, batch.ids[i].tolist(), strict=True)
        ]
        for column, ids in zip(LAYOUT.sequences if with_sequences else (), batch.sequences, strict=False):
            kept = [tables[column.table][index] for index in ids[i].tolist() if index != column.pad_id]
            parts.append(np.mean(kept, axis=0) if kept else np.zeros(LAYOUT.dims[column.table]))
        expected = np.concatenate([*parts, batch.dense[i].numpy()])
        np.testing.assert_allclose(found[i], expected, rtol=1e-5, atol=1e-6)
    assert found.shape[1] == input_width(LAYOUT, with_sequences) == WIDTH - (0 if with_sequences else 8)


@pytest.mark.parametrize("name", NO_BRANCHES)
@pytest.mark.parametrize("tasks", TASKS)
def test_logits_are_towers_on_the_trunk_on_the_input_vector(name, tasks):
    network = network_of(name, tasks)
    batch = random_batch(9)
    logits = network(batch)
    assert logits.shape == (9, tasks)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, network.heads(network.trunk(network.represent(batch))))
    # The tasks have weights of their own.
    assert all(not torch.equal(logits[:, 0], logits[:, task]) for task in range(1, tasks))


@given(
    lengths=st.lists(st.integers(0, 6), min_size=1, max_size=5),
    extra=st.integers(0, 4),
    seed=st.integers(0, 1000),
)
@settings(max_examples=50)
def test_mean_pooling_is_the_mean_of_what_is_there(lengths, extra, seed):
    generator = torch.Generator().manual_seed(seed)
    longest = max(max(lengths), 1) + extra
    embedded = torch.randn(len(lengths), longest, 3, generator=generator)
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    found = masked_mean(embedded, mask)
    for row, length in enumerate(lengths):
        expected = embedded[row, :length].sum(dim=0) / max(length, 1)
        torch.testing.assert_close(found[row], expected, rtol=1e-5, atol=1e-6)


def test_a_gap_within_a_history_is_padding():
    embedded = torch.tensor([[[1.0], [100.0], [3.0]]])
    assert masked_mean(embedded, torch.tensor([[True, False, True]])).item() == 2.0


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("tasks", TASKS)
def test_a_row_depends_on_itself_alone(name, tasks):
    """Order of the batch, company and number of the rows, and padding change no logit."""
    network = network_of(name, tasks)
    batch = random_batch(17)
    logits = network(batch)
    order = torch.randperm(17, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(network(rows_of(batch, order)), logits[order], rtol=1e-5, atol=1e-6)
    for i in range(17):
        alone = network(rows_of(batch, [i]))
        torch.testing.assert_close(alone, logits[[i]], rtol=1e-5, atol=1e-6)
    padded = tuple(
        torch.nn.functional.pad(ids, (0, 40), value=column.pad_id)
        for ids, column in zip(batch.sequences, LAYOUT.sequences, strict=True)
    )
    torch.testing.assert_close(network(batch._replace(sequences=padded)), logits, rtol=1e-5, atol=1e-6)


def test_labels_never_reach_the_logits():
    network = network_of("mmoe")
    batch = random_batch(9)
    assert torch.equal(network(batch), network(batch._replace(labels=torch.full((9, 2), float("nan")))))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("tasks", TASKS)
def test_every_weight_receives_a_gradient(name, tasks):
    network = network_of(name, tasks)
    batch = random_batch(64)
    (network(batch) * torch.randn(64, tasks, generator=torch.Generator().manual_seed(2))).sum().backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        gradient = parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad
        assert torch.isfinite(gradient).all(), parameter_name
        assert gradient.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", MODELS)
def test_each_task_has_a_tower_that_no_other_task_moves(name):
    network = network_of(name, 3)
    network(random_batch(64))[:, 1].sum().backward()
    moved = network.heads.output.weight.grad.flatten(1).abs().sum(dim=1)
    assert moved[1] > 0
    assert moved[[0, 2]].tolist() == [0, 0]


def test_gradients_of_tables_name_the_rows_of_the_batch_only():
    network = network_of("mmoe")
    batch = random_batch(1)
    network(batch).sum().backward()
    touched = [set(), set()]
    for columns, ids in ((LAYOUT.ids, batch.ids.unbind(1)), (LAYOUT.sequences, batch.sequences)):
        for column, values in zip(columns, ids, strict=True):
            touched[column.table] |= set(values.flatten().tolist())
    for table, rows in zip(tables_of(network), touched, strict=True):
        assert table.grad.is_sparse
        assert set(table.grad.coalesce().indices()[0].tolist()) == rows
        assert len(rows) < len(table)


def test_padding_receives_no_gradient():
    network = network_of("shared_bottom")
    batch = random_batch(30)
    network(batch).sum().backward()
    pad_of_tags = LAYOUT.sequences[1].pad_id
    assert (batch.sequences[1] == pad_of_tags).any()
    assert tables_of(network)[1].grad.to_dense()[pad_of_tags].abs().sum() == 0


@pytest.mark.parametrize("name", MODELS)
def test_a_row_of_which_nothing_is_known_has_a_finite_logit(name):
    network = network_of(name)
    for step in (0, 1):  # all missing, all unseen
        batch = random_batch(1)._replace(
            ids=torch.tensor([[column.offset + step for column in LAYOUT.ids]], dtype=torch.int32),
            dense=torch.zeros(1, 2),
            sequences=tuple(
                torch.full((1, column.max_len), column.pad_id, dtype=torch.int32)
                for column in LAYOUT.sequences
            ),
        )
        assert torch.isfinite(network(batch)).all()


def test_missing_and_unseen_values_start_at_zero_and_others_do_not():
    torch.manual_seed(0)
    tables = list(Embeddings(LAYOUT).parameters())
    special = {(c.table, c.offset + step) for c in (*LAYOUT.ids, *LAYOUT.sequences) for step in (0, 1)}
    for number, table in enumerate(tables):
        for row, values in enumerate(table):
            assert bool(values.abs().sum() > 0) == ((number, row) not in special)
    learned = torch.cat([table.flatten() for table in list(Embeddings(BIG).parameters())])
    assert learned.std().item() == pytest.approx(0.01, rel=0.05)


BIG = Layout((8,), (2002,), (IdColumn("user", 0, 0, 2002),), (), ())


@pytest.mark.parametrize("name", WITHOUT_HISTORY)
@pytest.mark.parametrize(
    "layout",
    [
        Layout((), (), (), (), ("age",)),
        Layout((4,), (5,), (IdColumn("user", 0, 0, 5),), (), ()),
        Layout((4,), (10,), (), LAYOUT.sequences[1:], ()),
    ],
    ids=["dense only", "ids only", "histories only"],
)
def test_inputs_of_one_kind_are_enough(name, layout):
    layout = Layout(
        layout.dims,
        layout.rows,
        layout.ids,
        tuple(column.__class__(**{**column.__dict__, "table": 0}) for column in layout.sequences),
        layout.dense,
    )
    network = network_of(name, layout=layout, wide={})
    logits = network(random_batch(6, layout=layout))
    assert logits.shape == (6, 2)
    logits.sum().backward()
    assert len({tuple(row) for row in logits.tolist()}) > 1


@pytest.mark.parametrize("name", MODELS)
def test_mixed_precision_gives_whole_logits(name):
    """Of a network as it is trained, with embeddings grown to a usual size."""
    torch.manual_seed(0)
    network = build_network(Model(**COMPOSITIONS[name]), LAYOUT, torch.zeros(2), tasks_of(2)).eval()
    with torch.no_grad():
        for table in network.tables():
            table.normal_(std=0.3)
    batch = random_batch(50)
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(batch)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, network(batch), rtol=2e-2, atol=2e-2)


def test_equal_seeds_give_equal_networks():
    def build(seed):
        torch.manual_seed(seed)
        return build_network(Model(), LAYOUT, torch.zeros(2)).state_dict()

    first, second, other = build(1), build(1), build(2)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
