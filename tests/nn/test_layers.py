"""What stands between matrices, for many networks at once: each is as if it were alone."""

import numpy as np
import pytest
import torch
from random_inputs import LAYOUT, random_batch, randomise
from test_trunks import CLOSE, array
from torch import nn
from torch.nn import functional as F

from mtl_rank.config import Model
from mtl_rank.errors import ConfigError
from mtl_rank.nn.init import INITS, initialise
from mtl_rank.nn.layers import ACTIVATIONS, NORMS, LayerOptions, hidden_layers
from mtl_rank.nn.trunks import MMoE
from mtl_rank.nn.zoo import build_network, check_model

ROWS, G, N = 30, 3, 5
X = torch.randn(ROWS, G, N, generator=torch.Generator().manual_seed(1)) * 2 + 0.5


def normalised(x):
    """By hand, over the rows, of one network."""
    return (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-5)


def test_prelu_has_a_slope_per_channel_of_each_network():
    layer = randomise(ACTIVATIONS["prelu"](G, N))
    for g in range(G):
        expected = F.prelu(X[:, g], layer.slope[g])
        torch.testing.assert_close(layer(X)[:, g], expected)


def test_dice_normalises_each_channel_of_each_network():
    layer = randomise(ACTIVATIONS["dice"](G, N)).train()
    found = array(layer(X))
    for g in range(G):
        x = array(X)[:, g]
        p = 1 / (1 + np.exp(-(x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-8)))
        np.testing.assert_allclose(found[:, g], p * x + (1 - p) * array(layer.alpha)[g] * x, **CLOSE)


def test_batch_norm_is_over_the_rows_of_each_channel():
    layer = NORMS["batch"](G, N).train()
    found = array(layer(X))
    for g in range(G):
        np.testing.assert_allclose(found[:, g], normalised(array(X)[:, g]), **CLOSE)
    # A last batch of one row has no spread of its own.
    one = layer(X[:1])
    torch.testing.assert_close(one, layer.eval()(X[:1]))


def test_layer_norm_is_over_each_networks_vector():
    layer = randomise(NORMS["layer"](G, N))
    for g in range(G):
        expected = F.layer_norm(X[:, g], (N,), layer.weight[g], layer.bias[g])
        torch.testing.assert_close(layer(X)[:, g], expected)


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu"])
@pytest.mark.parametrize("norm", sorted(NORMS))
@pytest.mark.parametrize("residual", [False, True])
def test_a_hidden_layer_is_matrix_norm_activation_and_what_it_was(activation, norm, residual):
    options = LayerOptions(activation=activation, norm=norm, residual=residual)
    layers = randomise(hidden_layers(G, [N, 4, 4], options)).train()
    linears = [m for m in layers.modules() if type(m).__name__ == "GroupedLinear"]
    norms = [m for m in layers.modules() if type(m) in (type(NORMS[norm](1, 1)) if NORMS[norm] else None,)]
    h = X
    for i, linear in enumerate(linears):
        out = torch.einsum("bgi,gio->bgo", h, linear.weight) + linear.bias.squeeze(1)
        if norms:
            out = norms[i](out)
        out = getattr(F, activation)(out)
        h = h + out if residual and h.shape == out.shape else out
    torch.testing.assert_close(layers(X), h, rtol=1e-4, atol=1e-5)


OPTIONS = {
    **{f"activation {name}": {"activation": name} for name in ACTIVATIONS},
    **{f"norm {name}": {"norm": name} for name in NORMS},
    "residual": {"residual": True, "expert_layers": (6, 6), "bottom_layers": (6, 6)},
    "embedding dropout": {"embedding_dropout": 0.4},
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", ["dnn", "mmoe", "ple"])
def test_every_option_learns_and_keeps_rows_apart_when_it_predicts(option, name):
    sizes = {"experts": 2, "expert_layers": (6, 4), "bottom_layers": (6, 4), "levels": 2, "dropout": 0.1}
    network = build_network(Model(name=name, **{**sizes, **OPTIONS[option]}), LAYOUT, torch.zeros(2))
    randomise(network).train()
    batch = random_batch(40)
    network(batch).pow(2).sum().backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        gradient = parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad
        assert torch.isfinite(gradient).all(), parameter_name
    network.eval()
    logits = network(batch)
    torch.testing.assert_close(network(random_batch(40)._replace(labels=batch.labels)), logits)
    half = type(batch)(
        *(
            None if part is None else tuple(s[:20] for s in part) if isinstance(part, tuple) else part[:20]
            for part in batch
        )
    )
    torch.testing.assert_close(network(half), logits[:20], rtol=1e-5, atol=1e-5)


def test_embedding_dropout_is_of_single_values_in_training_only():
    network = build_network(Model(name="dnn", embedding_dropout=0.5), LAYOUT, torch.zeros(1))
    randomise(network)
    batch = random_batch(400)
    torch.manual_seed(0)
    embedded = network.train().embeddings(batch)
    plain = network.eval().embeddings(batch)
    for dropped, whole in zip(
        [*embedded.ids, *embedded.sequences], [*plain.ids, *plain.sequences], strict=True
    ):
        gone = dropped == 0
        assert 0.45 < gone.float().mean() < 0.55
        torch.testing.assert_close(dropped[~gone], 2 * whole[~gone])


@pytest.mark.parametrize("name", sorted(set(INITS) - {"default"}))
def test_matrices_start_as_they_are_named_each_network_on_its_own(name):
    trunk = MMoE(300, 2, 4, (200, 100), LayerOptions())
    torch.manual_seed(0)
    initialise(trunk, name)
    first = trunk.experts.first.weight[: 4 * 200].view(4, 200, 300)
    rest = next(m for m in trunk.experts.rest if hasattr(m, "weight")).weight  # (4, 200, 100)
    for n_in, n_out, weights in ((300, 200, first), (200, 100, rest.transpose(1, 2))):
        std = {
            "xavier_uniform": np.sqrt(2 / (n_in + n_out)),
            "xavier_normal": np.sqrt(2 / (n_in + n_out)),
            "kaiming_uniform": np.sqrt(2 / n_in),
            "kaiming_normal": np.sqrt(2 / n_in),
            "orthogonal": np.sqrt(1 / max(n_in, n_out)),
        }[name]
        for weight in weights:
            assert weight.std().item() == pytest.approx(std, rel=0.03)
            if name == "orthogonal":
                torch.testing.assert_close(weight @ weight.T, torch.eye(n_out), rtol=1e-4, atol=1e-4)
    assert trunk.experts.first.bias.abs().sum() == 0


def test_another_start_leaves_the_prior_and_the_first_order_weights():
    prior = torch.tensor([-3.0, 1.0])
    model = Model(name="wide_deep", init="xavier_normal", bottom_layers=(5,), tower_layers=())
    network = build_network(model, LAYOUT, prior)
    torch.testing.assert_close(network.heads.output.bias.flatten(), prior)
    assert all(p.abs().sum() == 0 for p in network.branches.parameters())
    assert not any(
        isinstance(m, nn.Linear) and m.bias is not None and m.bias.any() for m in network.trunk.modules()
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "reul"}, r"model\.activation: there is no 'reul'; did you mean 'relu'\?"),
        ({"norm": "btach"}, r"model\.norm: there is no 'btach'; did you mean 'batch'\?"),
        ({"init": "xavier"}, r"model\.init: there is no 'xavier'; did you mean 'xavier_"),
        (
            {"name": "deepfm", "dim": "auto"},
            r"fm multiplies embeddings of one width, and model\.dim=auto gives several",
        ),
        (
            {"pretrained": {"itm": {"path": "x"}}},
            r"model\.pretrained: there is no id input 'itm'; did you mean 'item'\?",
        ),
        ({"pretrained": {"age#bin": {"path": "x"}}}, r"model\.pretrained: there is no id input 'age#bin'"),
    ],
)
def test_what_does_not_exist_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        check_model(Model(**options), None, LAYOUT)
