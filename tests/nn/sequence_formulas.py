"""Sequence encoders by NumPy, position by position from their papers' formulas, and random histories to try them on."""

import math

import numpy as np
import torch
from random_inputs import randomise
from test_trunks import array

from mtl_rank.nn.bst import BST
from mtl_rank.nn.dice import Dice
from mtl_rank.nn.dien import DIEN
from mtl_rank.nn.din import DIN
from mtl_rank.nn.history import History, MeanPooling

B, L, DIM = 6, 5, 4
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
ENCODERS = {
    "mean": MeanPooling,
    "din": lambda: DIN(DIM, (5, 3)),
    "dien": lambda: DIEN(DIM, 1.0),
    "bst": lambda: BST(DIM, L, blocks=1, heads=2, dropout=0.0),
    "bst of two blocks": lambda: BST(DIM, L, blocks=2, heads=2, dropout=0.0),
}


def history_of(lengths=(0, 1, 2, 5, 3, 4), longest=L, seed=0):
    """Padding holds embeddings too: it must be the mask that keeps them out."""
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randn(len(lengths), longest, DIM, generator=generator)
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    ids = torch.randint(1, 100, mask.shape, generator=generator) * mask
    return History(keys, ids, mask, torch.randn(len(lengths), DIM, generator=generator))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def dice(s, mean, variance, alpha):
    p = sigmoid((s - mean) / np.sqrt(variance + 1e-8))
    return p * s + (1 - p) * alpha * s


def encoder_of(name):
    """Random weights; moving means of Dice that are not zero and one."""
    encoder = randomise(ENCODERS[name]()).eval()
    for module in encoder.modules():
        if isinstance(module, Dice):
            module.mean.normal_(generator=torch.Generator().manual_seed(5))
            module.variance.uniform_(0.5, 2.0, generator=torch.Generator().manual_seed(6))
    return encoder


def attention_unit(unit, k, q):
    """One position: MLP([k, q, q - k, q * k])."""
    h = array(unit.weight) @ np.concatenate([k, q, q - k, q * k]) + array(unit.bias)
    layers = [(array(layer.weight), array(layer.bias)) for layer in (*unit.rest, unit.output)]
    for activation, (weight, bias) in zip(unit.activations, layers, strict=True):
        h = (
            weight @ dice(h, array(activation.mean), array(activation.variance), array(activation.alpha))
            + bias
        )
    return h[0]


def din_by_hand(encoder, keys, query):
    weights = [attention_unit(encoder.unit, k, query) for k in keys]
    return sum((a * k for a, k in zip(weights, keys, strict=True)), np.zeros(DIM)), weights


def gru_cell(gru, x, h):
    """The paper's gates: u, r = sigmoid(W x + U h + b), c = tanh(W x + b + r * U h), h' = (1 - u) h + u c.

    torch names the complement of u and orders r, z, n.
    """
    wx = array(gru.weight_ih_l0) @ x + array(gru.bias_ih_l0)
    wh = array(gru.weight_hh_l0) @ h + array(gru.bias_hh_l0)
    r, z = sigmoid(wx[:DIM] + wh[:DIM]), sigmoid(wx[DIM : 2 * DIM] + wh[DIM : 2 * DIM])
    return (1 - z) * np.tanh(wx[2 * DIM :] + r * wh[2 * DIM :]) + z * h


def states_by_hand(encoder, keys):
    states, h = [], np.zeros(DIM)
    for k in keys:
        h = gru_cell(encoder.extractor, k, h)
        states.append(h)
    return states


def dien_by_hand(encoder, keys, query):
    states = states_by_hand(encoder, keys)
    scores = np.array([h @ array(encoder.match.weight) @ query for h in states])
    weights = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum() if states else []
    w, b, u = (
        array(encoder.evolution.of_input.weight),
        array(encoder.evolution.of_input.bias),
        array(encoder.evolution.of_state.weight),
    )
    h = np.zeros(DIM)
    for x, a in zip(states, weights, strict=True):
        wx, uh = w @ x + b, u @ h
        update, reset = sigmoid(wx[:DIM] + uh[:DIM]), sigmoid(wx[DIM : 2 * DIM] + uh[DIM : 2 * DIM])
        candidate = np.tanh(wx[2 * DIM :] + reset * uh[2 * DIM :])
        h = (1 - a * update) * h + a * update * candidate
    return h, weights


def layer_norm(x, norm):
    centred = x - x.mean(axis=1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5) * array(norm.weight) + array(
        norm.bias
    )


def block_by_hand(block, x):
    """All tokens of one row, whose padding is gone."""
    q, k, v = (x @ array(m.weight).T + array(m.bias) for m in (block.query, block.key, block.value))
    heads, all_weights = [], []
    for part in np.split(np.arange(DIM), 2):
        scores = q[:, part] @ k[:, part].T / math.sqrt(DIM / 2)
        weights = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        heads.append(weights @ v[:, part])
        all_weights.append(weights)
    joined = np.concatenate(heads, axis=1) @ array(block.joined.weight).T + array(block.joined.bias)
    x = layer_norm(x + joined, block.norms[0])
    first, _, second = block.feed_forward
    inner = x @ array(first.weight).T + array(first.bias)
    inner = np.where(inner > 0, inner, 0.01 * inner) @ array(second.weight).T + array(second.bias)
    return layer_norm(x + inner, block.norms[1]), np.mean(all_weights, axis=0)


def bst_by_hand(encoder, keys, query):
    positions = array(encoder.positions)
    x = np.stack([query, *keys]) + positions[[0, *range(len(keys), 0, -1)]]
    for block in (*encoder.blocks, encoder.last):
        x, weights = block_by_hand(block, x)
    return x[0], weights[0, 1:]


BY_HAND = {
    "mean": lambda _, keys, __: (np.mean(keys, axis=0) if len(keys) else np.zeros(DIM), None),
    "din": din_by_hand,
    "dien": dien_by_hand,
    "bst": bst_by_hand,
    "bst of two blocks": bst_by_hand,
}
