"""The same logits as the peers' models with the same weights, where theirs follow the paper.

Runs where the peers are installed, as by `make test-extras`. Left out on purpose, as docs/models.md says: their PLE,
DCN V2, DIN and DIEN that depart from the papers.
"""

import numpy as np
import pytest
import torch
from random_inputs import random_batch, randomise
from torch import nn

from mtl_rank.config import Model, Task
from mtl_rank.nn.layout import IdColumn, Layout
from mtl_rank.nn.zoo import build_network

SIZES = (5, 7, 4)
DIM = 3
LAYOUT = Layout(
    (DIM,),
    (sum(SIZES),),
    tuple(IdColumn(f"c{i}", 0, sum(SIZES[:i]), size) for i, size in enumerate(SIZES)),
    (),
    (),
)
BATCH = random_batch(20, layout=LAYOUT)
LOCAL = (BATCH.ids - torch.tensor([column.offset for column in LAYOUT.ids])).long()
OPTIONS = {
    "dropout": 0.0,
    "bottom_layers": (6, 5),
    "expert_layers": (6, 5),
    "tower_layers": (4,),
    "experts": 3,
}


def ours(name, tasks=1, relations=None, **options):
    model = Model(name=name, dim=DIM, **{**OPTIONS, **options})
    return randomise(build_network(model, LAYOUT, torch.zeros(tasks), relations)).eval()


def same(network, logits):
    with torch.no_grad():
        torch.testing.assert_close(network(BATCH), logits, rtol=1e-5, atol=1e-5)


def copy_linear(to, weight, bias=None):
    """weight: (out, in)."""
    with torch.no_grad():
        to.weight.copy_(weight)
        if bias is not None:
            to.bias.copy_(bias)


def copy_networks(linears, wide, k):
    """Network k of a WideFirst into a list of linear layers."""
    widths = wide.rest[0].weight.shape[1] if len(wide.rest) else linears[0].out_features
    rows = slice(k * widths, (k + 1) * widths)
    copy_linear(linears[0], wide.first.weight[rows], wide.first.bias[rows])
    copy_grouped(linears[1:], wide.rest, k)


def copy_grouped(linears, layers, k):
    layers = [layer for layer in layers if hasattr(layer, "weight")]
    for linear, layer in zip(linears, layers, strict=True):
        copy_linear(linear, layer.weight[k].T, layer.bias[k, 0])


@pytest.fixture(scope="module")
def deepctr():
    pytest.importorskip("deepctr_torch")
    from deepctr_torch import models
    from deepctr_torch.inputs import SparseFeat

    columns = [SparseFeat(column.name, column.size, embedding_dim=DIM) for column in LAYOUT.ids]
    return models, columns


def copy_deepctr(peer, network):
    """Embeddings and first-order weights."""
    table = network.embeddings.tables[0].weight
    with torch.no_grad():
        for column in LAYOUT.ids:
            rows = slice(column.offset, column.offset + column.size)
            peer.embedding_dict[column.name].weight.copy_(table[rows])
            if peer.linear_model.embedding_dict:
                first_order = network.branches.branches["wide"].weights.weight
                peer.linear_model.embedding_dict[column.name].weight.copy_(first_order[rows])


def deepctr_logits(peer):
    with torch.no_grad():
        return peer.eval()(LOCAL.float())


@pytest.mark.parametrize("name", ["wide_deep", "deepfm", "xdeepfm"])
def test_models_with_a_first_order_part(deepctr, name):
    models, columns = deepctr
    options = {"dnn_hidden_units": (6, 5, 4), "task": "regression"}
    if name == "xdeepfm":
        options |= {"cin_layer_size": (4, 3), "cin_split_half": False, "cin_activation": "linear"}
    kind = {"wide_deep": models.WDL, "deepfm": models.DeepFM, "xdeepfm": models.xDeepFM}[name]
    peer = kind(columns, columns, **options)
    network = ours(name, cin_layers=(4, 3))
    copy_deepctr(peer, network)
    copy_networks(peer.dnn.linears[:2], network.trunk.networks, 0)
    copy_grouped(peer.dnn.linears[2:], network.heads.hidden, 0)
    copy_linear(peer.dnn_linear, network.heads.output.weight[0].T)
    with torch.no_grad():
        peer.out.bias.copy_(network.heads.output.bias.view(1))
        if name == "xdeepfm":
            for conv, weight in zip(peer.cin.conv1ds, network.branches.branches["cin"].weights, strict=True):
                conv.weight.copy_(weight.unsqueeze(2))
                conv.bias.zero_()
            copy_linear(peer.cin_linear, network.heads.of_branches.weight)
    same(network, deepctr_logits(peer))


@pytest.mark.parametrize(("name", "form"), [("dcn", "vector"), ("dcn_v2", "matrix")])
def test_cross_networks(deepctr, name, form):
    models, columns = deepctr
    peer = models.DCN(
        [], columns, cross_num=3, cross_parameterization=form, dnn_hidden_units=(6, 5, 4), task="regression"
    )
    network = ours(name)
    copy_deepctr(peer, network)
    copy_networks(peer.dnn.linears[:2], network.trunk.networks, 0)
    copy_grouped(peer.dnn.linears[2:], network.heads.hidden, 0)
    (branch,) = network.branches.branches.values()
    with torch.no_grad():
        peer.out.bias.copy_(network.heads.output.bias.view(1))
        deep = network.heads.output.weight[0].T
        peer.dnn_linear.weight.copy_(torch.cat([network.heads.of_branches.weight, deep], dim=1))
        if form == "vector":
            peer.crossnet.kernels.copy_(branch.network.weight.unsqueeze(2))
            peer.crossnet.bias.copy_(branch.network.bias.unsqueeze(2))
        else:
            for i, layer in enumerate(branch.network.layers):
                peer.crossnet.kernels[i].copy_(layer.weight)
                peer.crossnet.bias[i].copy_(layer.bias.unsqueeze(1))
    same(network, deepctr_logits(peer))


def copy_deepctr_towers(peer, network, towers, finals, outs):
    for t, (tower, final, out) in enumerate(zip(towers, finals, outs, strict=True)):
        copy_grouped(tower.linears, network.heads.hidden, t)
        copy_linear(final, network.heads.output.weight[t].T)
        with torch.no_grad():
            out.bias.copy_(network.heads.output.bias[t].view(1))


def test_mmoe_and_shared_bottom(deepctr):
    models, columns = deepctr
    tasks = {"task_types": ("regression",) * 2, "task_names": ("a", "b"), "tower_dnn_hidden_units": (4,)}
    peer = models.MMOE(
        columns, num_experts=3, expert_dnn_hidden_units=(6, 5), gate_dnn_hidden_units=(), **tasks
    )
    network = ours("mmoe", 2)
    first = network.trunk.experts.first
    with torch.no_grad():
        first.bias[3 * 6 :] = 0
    copy_deepctr(peer, network)
    for k, expert in enumerate(peer.expert_dnn):
        copy_networks(expert.linears, network.trunk.experts, k)
    for t, gate in enumerate(peer.gate_dnn_final_layer):
        copy_linear(gate, first.weight[18 + 3 * t : 18 + 3 * (t + 1)])
    copy_deepctr_towers(peer, network, peer.tower_dnn, peer.tower_dnn_final_layer, peer.out)
    same(network, deepctr_logits(peer))

    peer = models.SharedBottom(columns, bottom_dnn_hidden_units=(6, 5), **tasks)
    network = ours("shared_bottom", 2)
    copy_deepctr(peer, network)
    copy_networks(peer.bottom_dnn.linears, network.trunk.bottom, 0)
    copy_deepctr_towers(peer, network, peer.tower_dnn, peer.tower_dnn_final_layer, peer.out)
    same(network, deepctr_logits(peer))


def test_esmm_predicts_the_product(deepctr):
    models, columns = deepctr
    peer = models.ESMM(columns, tower_dnn_hidden_units=(6, 5, 4))
    relations = {"ctr": Task(label="y"), "cvr": Task(label="y", given="ctr")}
    network = ours("esmm", 2, relations)
    with torch.no_grad():
        network.heads.output.bias[1] = network.heads.output.bias[0]  # theirs has one for both
    copy_deepctr(peer, network)
    for t, (tower, final) in enumerate(
        [(peer.ctr_dnn, peer.ctr_dnn_final_layer), (peer.cvr_dnn, peer.cvr_dnn_final_layer)]
    ):
        copy_networks(tower.linears[:2], network.trunk.networks, t)
        copy_grouped(tower.linears[2:], network.heads.hidden, t)
        copy_linear(final, network.heads.output.weight[t].T)
    with torch.no_grad():
        peer.out.bias.copy_(network.heads.output.bias[0].view(1))
        logits, _ = network.heads.objective(network(BATCH), torch.zeros(20, 2))
    np.testing.assert_allclose(torch.sigmoid(logits), deepctr_logits(peer), rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def rechub():
    pytest.importorskip("torch_rechub")
    from torch_rechub.basic.features import SparseFeature
    from torch_rechub.models import multi_task, ranking

    def features():
        # Theirs cache the table: new ones for each model.
        return [SparseFeature(c.name, c.size, embed_dim=DIM) for c in LAYOUT.ids]

    return multi_task, ranking, features


def without_batch_norm(module):
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm1d):
            setattr(module, name, nn.Identity())
        else:
            without_batch_norm(child)
    return module.eval()


def linears(mlp):
    return [layer for layer in mlp.mlp if isinstance(layer, nn.Linear)]


def copy_rechub(peer, network):
    table = network.embeddings.tables[0].weight
    with torch.no_grad():
        for column in LAYOUT.ids:
            peer.embedding.embed_dict[column.name].weight.copy_(
                table[column.offset : column.offset + column.size]
            )
    for t, tower in enumerate(getattr(peer, "towers", [])):
        *hidden, last = linears(tower)
        copy_grouped(hidden, network.heads.hidden, t)
        copy_linear(last, network.heads.output.weight[t].T, network.heads.output.bias[t, 0])


def rechub_logits(peer):
    with torch.no_grad():
        p = without_batch_norm(peer).double()({c.name: LOCAL[:, i] for i, c in enumerate(LAYOUT.ids)})
    return torch.logit(p).float()


TOWERS = [{"dims": [4]}] * 2
EXPERTS = {"dims": [6, 5]}
BINARY = ["classification"] * 2


def test_mmoe_of_the_other_peer_has_a_bias_in_its_gates(rechub):
    multi_task, _, features = rechub
    peer = multi_task.MMOE(features(), BINARY, 3, EXPERTS, TOWERS)
    network = ours("mmoe", 2)
    copy_rechub(peer, network)
    first = network.trunk.experts.first
    for k, expert in enumerate(peer.experts):
        copy_networks(linears(expert), network.trunk.experts, k)
    for t, gate in enumerate(peer.gates):
        rows = slice(18 + 3 * t, 18 + 3 * (t + 1))
        copy_linear(linears(gate)[0], first.weight[rows], first.bias[rows])
    same(network, rechub_logits(peer))


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_ple(rechub, levels):
    multi_task, _, features = rechub
    peer = multi_task.PLE(features(), BINARY, levels, 2, 3, EXPERTS, TOWERS)
    network = ours("ple", 2, levels=levels, task_experts=2)
    copy_rechub(peer, network)
    for level, cgc in enumerate(peer.cgc_layers):
        experts = [*cgc.experts_specific, *cgc.experts_shared]
        gates = [*cgc.gates_specific, *([cgc.gate_shared] if level < levels - 1 else [])]
        if level == 0:
            for k, expert in enumerate(experts):
                copy_networks(linears(expert), network.trunk.first, k)
            start = len(experts) * 6
            for gate in gates:
                (linear,) = linears(gate)
                rows = slice(start, start + linear.out_features)
                copy_linear(
                    linear, network.trunk.first.first.weight[rows], network.trunk.first.first.bias[rows]
                )
                start = rows.stop
        else:
            module = network.trunk.deeper[level - 1]
            for k, expert in enumerate(experts):
                copy_grouped(linears(expert), module.networks, k)
            for t, gate in enumerate(cgc.gates_specific):
                copy_linear(linears(gate)[0], module.task_gates.weight[t].T, module.task_gates.bias[t, 0])
            if level < levels - 1:
                (linear,) = linears(cgc.gate_shared)
                copy_linear(linear, module.shared_gate.weight, module.shared_gate.bias)
    same(network, rechub_logits(peer))


def test_aitm(rechub):
    multi_task, _, features = rechub
    peer = multi_task.AITM(features(), 3, EXPERTS, [{"dims": [4]}] * 3)
    relations = {name: Task(label="y") for name in ("a", "b", "c")}
    network = ours("aitm", 3, relations)
    copy_rechub(peer, network)
    for t, bottom in enumerate(peer.bottoms):
        copy_networks(linears(bottom), network.trunk.networks, t)
    for t in range(2):
        copy_grouped(linears(peer.info_gates[t]), network.heads.information[t], 0)
        ait, transfer = peer.aits[t], network.heads.transfer[t]
        for to, layer in (
            (ait.q_layer, transfer.query),
            (ait.k_layer, transfer.key),
            (ait.v_layer, transfer.value),
        ):
            copy_linear(to, layer.weight)
    same(network, rechub_logits(peer))


def test_dcn_of_the_other_peer(rechub):
    _, ranking, features = rechub
    peer = ranking.DCN(features(), 3, {"dims": [6, 5, 4]})
    network = ours("dcn")
    copy_rechub(peer, network)
    first, second, third = linears(peer.mlp)
    copy_networks([first, second], network.trunk.networks, 0)
    copy_grouped([third], network.heads.hidden, 0)
    cross = network.branches.branches["cross"].network
    with torch.no_grad():
        for w, b, weight, bias in zip(peer.cn.w, peer.cn.b, cross.weight, cross.bias, strict=True):
            w.weight.copy_(weight.unsqueeze(0))
            b.copy_(bias)
        last = next(module for module in peer.linear.modules() if isinstance(module, nn.Linear))
        last.weight.copy_(
            torch.cat([network.heads.of_branches.weight, network.heads.output.weight[0].T], dim=1)
        )
        last.bias.copy_(network.heads.output.bias.view(1))
    same(network, rechub_logits(peer).unsqueeze(1))
