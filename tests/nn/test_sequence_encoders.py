"""Sequence encoders recomputed by NumPy from their formulas, position by position; padding changes nothing."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_inputs import EVEN, LAYOUT, random_batch, randomise
from sequence_formulas import (
    BY_HAND,
    CLOSE,
    DIM,
    ENCODERS,
    B,
    L,
    dice,
    encoder_of,
    history_of,
    sigmoid,
    states_by_hand,
)
from test_trunks import array

from mtl_rank.config import Model
from mtl_rank.errors import ConfigError
from mtl_rank.nn.dice import Dice
from mtl_rank.nn.dien import DIEN
from mtl_rank.nn.history import History, without_gaps
from mtl_rank.nn.zoo import build_network, check_model


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_follow_their_formulas(name):
    encoder = encoder_of(name)
    history = history_of()
    found = array(encoder(history).vector)
    attended = encoder.attention(history)
    weights = None if attended is None else array(attended)
    for row in range(B):
        keys = array(history.keys)[row][history.mask[row].numpy()]
        expected, of_positions = BY_HAND[name](encoder, keys, array(history.target)[row])
        np.testing.assert_allclose(found[row], expected, **CLOSE)
        if weights is not None:
            np.testing.assert_allclose(weights[row, : len(keys)], of_positions, **CLOSE)
            assert (weights[row, len(keys) :] == 0).all()


@pytest.mark.parametrize("name", ENCODERS)
@given(
    lengths=st.lists(st.integers(0, L), min_size=1, max_size=4),
    extra=st.integers(0, 6),
    seed=st.integers(0, 100),
)
@settings(max_examples=25)
def test_padding_changes_nothing(name, lengths, extra, seed):
    """Neither how long it is nor what its embeddings hold."""
    encoder = encoder_of(name)
    short = history_of(lengths, seed=seed)
    noise = torch.randn(len(lengths), extra, DIM) * 100
    long = History(
        torch.cat([torch.where(short.mask.unsqueeze(2), short.keys, 7.0), noise], dim=1),
        torch.nn.functional.pad(short.ids, (0, extra)),
        torch.nn.functional.pad(short.mask, (0, extra)),
        short.target,
    )
    torch.testing.assert_close(encoder(long).vector, encoder(short).vector, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["din", "dien", "bst"])
def test_padding_changes_nothing_in_training_either(name):
    """Statistics of Dice and the auxiliary loss are over what is there."""
    short = history_of()
    long = History(
        torch.nn.functional.pad(short.keys, (0, 0, 0, 3), value=50.0),
        torch.nn.functional.pad(short.ids, (0, 3)),
        torch.nn.functional.pad(short.mask, (0, 3)),
        short.target,
    )
    outputs = []
    for history in (short, long):
        encoder = randomise(ENCODERS[name]()).train()
        encoded = encoder(history)
        outputs.append(
            [encoded.vector, *[b for key, b in encoder.state_dict().items() if key.endswith("mean")]]
        )
    for a, b in zip(*outputs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ENCODERS)
def test_an_empty_history_is_a_finite_vector_with_finite_gradients(name):
    encoder = randomise(ENCODERS[name]()).train()
    for lengths in ((0,), (0, 0, 0), (1,)):
        history = history_of(lengths)
        history = history._replace(keys=history.keys.requires_grad_())
        encoded = encoder(history)
        total = encoded.vector.sum() + (0 if encoded.auxiliary is None else encoded.auxiliary)
        assert torch.isfinite(total)
        total.backward()
        assert torch.isfinite(history.keys.grad).all()
        assert (history.keys.grad[~history.mask] == 0).all()


def test_dice_in_training_normalises_by_the_batch_and_remembers():
    dice_layer = Dice(3)
    with torch.no_grad():
        dice_layer.alpha.normal_(generator=torch.Generator().manual_seed(0))
    s = torch.randn(40, 2, 3, generator=torch.Generator().manual_seed(1)) * 2 + 1
    mask = torch.rand(40, 2, generator=torch.Generator().manual_seed(2)) < 0.6
    there = array(s)[mask.numpy()]
    mean, variance = there.mean(axis=0), there.var(axis=0)
    expected = dice(array(s), mean, variance, array(dice_layer.alpha))
    np.testing.assert_allclose(array(dice_layer(s, mask)), expected, **CLOSE)
    np.testing.assert_allclose(array(dice_layer.mean), 0.1 * mean, **CLOSE)
    np.testing.assert_allclose(array(dice_layer.variance), 0.9 + 0.1 * variance, **CLOSE)
    np.testing.assert_allclose(
        array(Dice(3)(s)), dice(array(s), array(s).mean(axis=(0, 1)), array(s).var(axis=(0, 1)), 0), **CLOSE
    )


def test_dice_of_nothing_remembers_nothing():
    layer = Dice(3)
    layer(torch.randn(4, 3), torch.zeros(4, dtype=torch.bool))
    assert layer.mean.tolist() == [0, 0, 0]
    assert layer.variance.tolist() == [1, 1, 1]


def test_the_auxiliary_loss_of_dien():
    """-mean [log sigmoid(h_t . e_{t+1}) + log(1 - sigmoid(h_t . e'))]; with two ids there is one other to draw."""
    encoder = randomise(DIEN(DIM, 0.7)).train()
    generator = torch.Generator().manual_seed(3)
    vectors = torch.randn(2, DIM, generator=generator)
    mask = torch.arange(L) < torch.tensor([5, 3, 1, 0])[:, None]
    ids = torch.randint(1, 3, (4, L), generator=generator) * mask
    keys = torch.where(mask.unsqueeze(2), vectors[ids - 1], 9.0)
    torch.manual_seed(0)
    history = History(keys, ids, mask, vectors[:1].expand(4, -1))
    # A step whose draw was the next behaviour itself does not count: what is left is known all the same.
    positions = mask.flatten().nonzero().squeeze(1)
    torch.manual_seed(1)
    drawn = positions[torch.randint(len(positions), (4, L - 1))]
    each = []
    for row in range(4):
        states = states_by_hand(encoder, array(keys)[row])
        for t in range(L - 1):
            other = ids.flatten()[drawn[row, t]]
            if mask[row, t + 1] and other != ids[row, t + 1]:
                h, nxt, e = states[t], array(keys)[row, t + 1], array(vectors)[other - 1]
                each.append(-np.log(sigmoid(h @ nxt)) - np.log(1 - sigmoid(h @ e)))
    torch.manual_seed(1)
    assert len(each) > 2
    assert encoder(history).auxiliary.item() == pytest.approx(0.7 * np.mean(each), rel=1e-5)
    encoder.eval()
    assert encoder(history).auxiliary is None
    assert DIEN(DIM, 0.0).train()(history).auxiliary is None


def test_the_auxiliary_loss_teaches_what_comes_next():
    """Behaviours that alternate: after some steps a state is nearer to the next one than to the one before."""
    torch.manual_seed(0)
    encoder = DIEN(DIM, 1.0).train()
    vectors = torch.nn.Parameter(torch.randn(2, DIM))
    ids = torch.tensor([[1, 2, 1, 2, 1], [2, 1, 2, 1, 2]])
    optimizer = torch.optim.Adam([*encoder.extractor.parameters(), vectors], lr=0.05)
    mask = torch.ones_like(ids, dtype=torch.bool)
    losses = []
    for _ in range(150):
        loss = encoder(History(vectors[ids - 1], ids, mask, vectors[:1].expand(2, -1))).auxiliary
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[0] > 1.0
    assert losses[-1] < 0.2


@given(st.lists(st.lists(st.integers(0, 3), min_size=5, max_size=5), min_size=1, max_size=4))
def test_gaps_close_and_the_order_stays(rows):
    found = without_gaps(torch.tensor(rows), 0)
    assert found.tolist() == [[i for i in row if i] + [0] * row.count(0) for row in rows]


@pytest.mark.parametrize("name", ["din", "dien", "bst"])
def test_a_network_reads_a_history_with_gaps_as_one_without(name):
    model = Model(name=name, bottom_layers=(5,), tower_layers=(), dropout=0, history={"heads": 3})
    network = randomise(build_network(model, EVEN, torch.zeros(2))).eval()
    batch = random_batch(30, layout=EVEN)
    seen = batch.sequences[0]
    gaps = torch.cat(
        [torch.full((30, 1), 12, dtype=seen.dtype), seen[:, :2], torch.full((30, 2), 12), seen[:, 2:]], 1
    )
    with_gaps = batch._replace(sequences=(gaps.int(), batch.sequences[1]))
    torch.testing.assert_close(network(with_gaps), network(batch), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["din", "dien", "bst"])
def test_what_has_no_candidate_or_no_order_is_pooled_by_its_mean(name):
    model = Model(name="dnn", sequences=name, history={"heads": 2})
    network = build_network(model, LAYOUT, torch.zeros(2))
    kinds = [type(encoder).__name__ for encoder in network.histories.encoders]
    assert kinds == [name.upper(), "MeanPooling"]


@pytest.mark.parametrize("name", ["din", "dien", "bst"])
def test_the_candidate_is_the_input_whose_rows_the_history_shares(name):
    """Another item changes what the history says; another city does not."""
    model = Model(name=name, bottom_layers=(5,), tower_layers=(), dropout=0, history={"heads": 2})
    network = randomise(build_network(model, LAYOUT, torch.zeros(2))).eval()
    batch = random_batch(30)

    def vector(ids):
        changed = network.histories.in_line(batch._replace(ids=ids))
        return network.histories(changed, network.embeddings(changed))[0][0]

    before = vector(batch.ids)
    other_item, other_city = batch.ids.clone(), batch.ids.clone()
    other_item[:, 3] = (batch.ids[:, 3] + 1) % 7
    other_city[:, 1] = 5 + (batch.ids[:, 1] - 5 + 1) % 4
    torch.testing.assert_close(vector(other_city), before)
    # A softmax over a single behaviour is one, whatever the candidate.
    there = (batch.sequences[0] != 0).sum(dim=1) > 1
    assert ((vector(other_item) - before).abs().sum(dim=1) > 1e-6)[there].all()


NO_TARGET = LAYOUT.__class__(**{**LAYOUT.__dict__, "sequences": LAYOUT.sequences[1:]})


@pytest.mark.parametrize(
    ("options", "layout", "message"),
    [
        (
            {"name": "din"},
            NO_TARGET,
            r"din needs a history that shares the embedding of an id input .*; use mean or none",
        ),
        ({"name": "bst"}, NO_TARGET, r"bst needs a history in time order that shares"),
        (
            {"name": "mmoe", "sequences": "dien"},
            NO_TARGET,
            r"model\.sequences: dien needs a history in time order",
        ),
        (
            {"name": "din", "sequences": "mean"},
            LAYOUT,
            r"model\.sequences: din has din, not mean; leave it out",
        ),
        (
            {"name": "bst", "history": {"heads": 3}},
            LAYOUT,
            r"3 heads do not divide the embedding of seen, 4 wide",
        ),
        (
            {"name": "din", "history": {"attention_layers": []}},
            LAYOUT,
            r"attention_layers: needs at least one width",
        ),
    ],
)
def test_what_cannot_work_is_refused(options, layout, message):
    with pytest.raises(ConfigError, match=message) as caught:
        check_model(Model(**options), None, layout)
    assert len(str(caught.value).splitlines()) == 1
