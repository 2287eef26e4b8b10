"""A bare torch loop with every trick that paid: no framework, no validation, no checkpoint, no logging.

One table with one gather, row-wise Adagrad on the rows of a batch (sort, then sum runs), one wide first layer
for experts and gates, fused Adam, blocks of shuffled rows sliced into batches.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtl_rank.training.precision import choose_precision
from train.rows import Rows

TASKS, EXPERTS, HIDDEN, OUT, TOWER, DIM = 2, 4, 256, 128, 64, 16
BLOCK, RUN = 65_536, 4_096


class Network(nn.Module):
    """Shape: ids (B, F), dense (B, D) -> logits (B, T)."""

    def __init__(self, rows: int, fields: int, dense: int) -> None:
        super().__init__()
        self.table = nn.Embedding(rows, DIM, sparse=True)
        nn.init.normal_(self.table.weight, std=0.01)
        self.first = nn.Linear(fields * DIM + dense, EXPERTS * HIDDEN + TASKS * EXPERTS)
        self.second = _weights(EXPERTS, HIDDEN, OUT)
        self.tower = _weights(TASKS, OUT, TOWER)
        self.output = _weights(TASKS, TOWER, 1)

    def forward(self, ids: Tensor, dense: Tensor) -> Tensor:
        e = torch.cat([self.table(ids).flatten(1), dense], dim=1)
        hidden, gates = self.first(e).split([EXPERTS * HIDDEN, TASKS * EXPERTS], dim=1)
        x = torch.relu(hidden).unflatten(1, (EXPERTS, HIDDEN)).transpose(0, 1)
        # In bf16 the product for the weights' gradient is three times as fast on a copy.
        x = x.contiguous() if x.dtype == torch.bfloat16 else x
        experts = torch.relu(torch.baddbmm(self.second[1], x, self.second[0])).transpose(0, 1)
        mixture = torch.softmax(gates.unflatten(1, (TASKS, EXPERTS)), dim=2).to(experts.dtype)
        mixed = (mixture @ experts).transpose(0, 1)
        tower = torch.relu(torch.baddbmm(self.tower[1], mixed, self.tower[0]))
        return torch.baddbmm(self.output[1], tower, self.output[0]).squeeze(2).T.float()


def train(folder: Path, batch_size: int, precision: str) -> None:
    torch.set_float32_matmul_precision(choose_precision("auto", "cpu").matmul)
    rows = Rows.open(folder)
    network = Network(sum(rows.sizes.values()), rows.ids.shape[1], rows.dense.shape[1])
    table = network.table.weight
    row_sum = torch.zeros(len(table))
    optimizer = torch.optim.Adam([p for p in network.parameters() if p is not table], lr=1e-3, fused=True)
    cast = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext()
    for ids, dense, labels in _batches(rows, batch_size):
        optimizer.zero_grad()
        with cast:
            logits = network(ids, dense)
        F.binary_cross_entropy_with_logits(logits, labels, reduction="sum").div(len(labels)).backward()
        _update_rows(table, row_sum)
        optimizer.step()


@torch.no_grad()
def _update_rows(table: nn.Parameter, row_sum: Tensor, lr: float = 3e-3) -> None:
    """Row-wise Adagrad: one number of state per row."""
    ordered, order = torch.sort(table.grad._indices()[0], stable=True)
    index, counts = torch.unique_consecutive(ordered, return_counts=True)
    gradient = F.embedding_bag(order, table.grad._values(), counts.cumsum(0) - counts, mode="sum")
    table.grad = None
    index = index.long()
    state = row_sum[index] + gradient.square().mean(dim=1)
    row_sum[index] = state
    table[index] -= gradient * (lr / (state.sqrt() + 1e-10)).unsqueeze(1)


def _batches(rows: Rows, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """One epoch; short batches at the ends of blocks are left out."""
    generator = np.random.default_rng(7)
    starts = generator.permutation(np.arange(0, len(rows.ids), RUN))
    per_block = BLOCK // RUN
    for first in range(0, len(starts), per_block):
        index = np.concatenate(
            [np.arange(s, min(s + RUN, len(rows.ids))) for s in starts[first : first + per_block]]
        )
        generator.shuffle(index)
        block = [torch.from_numpy(array[index]) for array in (rows.ids, rows.dense, rows.labels)]
        for start in range(0, len(index) - size + 1, size):
            ids, dense, labels = (array[start : start + size] for array in block)
            yield ids, dense, labels


def _weights(groups: int, n_in: int, n_out: int) -> nn.ParameterList:
    bound = n_in**-0.5
    shapes = ((groups, n_in, n_out), (groups, 1, n_out))
    return nn.ParameterList(nn.Parameter(torch.empty(shape).uniform_(-bound, bound)) for shape in shapes)
