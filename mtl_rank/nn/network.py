"""RankingNetwork: the composition that every model of the zoo is.

e = [v_1; ...; v_m; sequence vectors; dense],
logit_t = w_t . [tower_t(trunk_t(e)); branch vectors] + sum of branch logits_t + b_t.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mtl_rank.nn.branch import Inputs
from mtl_rank.nn.branches import Branches
from mtl_rank.nn.embedding import Embedded, Embeddings
from mtl_rank.nn.fields import IndependentFields, SharedFields
from mtl_rank.nn.heads import Towers
from mtl_rank.nn.layout import Batch, Layout
from mtl_rank.nn.sequences import Histories
from mtl_rank.nn.trunks import Trunk


class Outputs(NamedTuple):
    """logits: (B, C), one per task or as `Columns` says.

    auxiliary: the sum of the losses of encoders and heads, in training; None = there is none.
    """

    logits: Tensor
    auxiliary: Tensor | None


class RankingNetwork(nn.Module):
    """Embeddings, a trunk and one tower per task, with sequence encoders and branches as configured.

    fields: the vectors that branches multiply. stacked: a cross network between e and the trunk.
    Returns logits, never probabilities. Shape: Batch -> (B, C), without classes (B, T)
    """

    def __init__(
        self,
        embeddings: Embeddings,
        histories: Histories | None,
        trunk: Trunk,
        heads: Towers,
        branches: Branches | None = None,
        fields: SharedFields | IndependentFields | None = None,
        stacked: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.histories = histories
        self.trunk = trunk
        self.heads = heads
        self.branches = branches
        self.fields = fields
        self.stacked = stacked

    @property
    def layout(self) -> Layout:
        return self.embeddings.layout

    def tables(self) -> list[nn.Parameter]:
        """Every table with row-sparse gradients: those of the embeddings, then those of branches."""
        return [
            parameter
            for module in self.modules()
            if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.sparse
            for parameter in module.parameters()
        ]

    def forward(self, batch: Batch) -> Tensor:
        return self.outputs(batch).logits

    def outputs(self, batch: Batch) -> Outputs:
        """The logits, and in training what encoders and heads add to the loss."""
        inputs, losses = self._inputs(batch)
        vectors, of_branches = self.branches(inputs) if self.branches is not None else (None, None)
        logits: Tensor = self.heads(self.trunk(self._trunk_input(inputs.e)), vectors)
        if of_branches is not None:
            logits = logits + of_branches
        logits = self.heads.cumulated(logits)
        if not self.training:
            return Outputs(logits, None)
        of_head = self.heads.auxiliary(logits)
        losses += [] if of_head is None else [of_head]
        return Outputs(logits, torch.stack(losses).sum() if losses else None)

    def represent(self, batch: Batch) -> Tensor:
        """The input vector e: (B, d)."""
        return self._inputs(batch)[0].e

    def gates(self, batch: Batch) -> list[Tensor]:
        """The weights that each task gives to its experts, per level (B, T, experts); none without gates."""
        return self.trunk.gates(self._trunk_input(self.represent(batch)))

    def attention(self, batch: Batch) -> dict[str, Tensor]:
        """By name of the sequence, where the encoder attends: (B, L) the weight of each behaviour.

        Weights are in the order of the behaviours that are there, zeros behind them.
        """
        if self.histories is None:
            return {}
        batch = self.histories.in_line(batch)
        return self.histories.attention(batch, self.embeddings(batch))

    def _trunk_input(self, e: Tensor) -> Tensor:
        crossed: Tensor = e if self.stacked is None else self.stacked(e)
        return crossed

    def _inputs(self, batch: Batch) -> tuple[Inputs, list[Tensor]]:
        if self.histories is not None:
            batch = self.histories.in_line(batch)
        embedded: Embedded = self.embeddings(batch)
        vectors, losses = self.histories(batch, embedded) if self.histories is not None else ([], [])
        parts = [of_table.flatten(1) for of_table in embedded.ids]
        e = torch.cat([*parts, *vectors, batch.dense], dim=1)
        fields = None if self.fields is None else self.fields(batch, embedded, vectors)
        return Inputs(batch, e, fields), losses


def input_width(layout: Layout, with_sequences: bool) -> int:
    """Length d of the input vector e."""
    pooled = sum(layout.dims[column.table] for column in layout.sequences) if with_sequences else 0
    return sum(layout.dims[column.table] for column in layout.ids) + pooled + len(layout.dense)
