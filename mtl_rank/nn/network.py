"""RankingNetwork: the composition that every model of the zoo is.

e = [v_1; ...; v_m; sequence vectors; dense], logit_t = tower_t(trunk_t(e)).
"""

import torch
from torch import Tensor, nn

from mtl_rank.nn.embedding import Embedded, Embeddings, padding_mask
from mtl_rank.nn.layout import Batch, Layout
from mtl_rank.nn.sequences import MeanPooling


class RankingNetwork(nn.Module):
    """Embeddings, a trunk and one tower per task.

    Returns logits, never probabilities. Shape: Batch -> (B, T)
    """

    def __init__(
        self, embeddings: Embeddings, pooling: MeanPooling | None, trunk: nn.Module, heads: nn.Module
    ) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.pooling = pooling
        self.trunk = trunk
        self.heads = heads

    @property
    def layout(self) -> Layout:
        return self.embeddings.layout

    def forward(self, batch: Batch) -> Tensor:
        logits: Tensor = self.heads(self.trunk(self.represent(batch)))
        return logits

    def represent(self, batch: Batch) -> Tensor:
        """The input vector e: (B, d)."""
        embedded: Embedded = self.embeddings(batch)
        parts = [vectors.flatten(1) for vectors in embedded.ids]
        if self.pooling is not None:
            for i, vectors in enumerate(embedded.sequences):
                parts.append(self.pooling(vectors, padding_mask(batch, self.layout, i)))
        return torch.cat([*parts, batch.dense], dim=1)


def input_width(layout: Layout, with_sequences: bool) -> int:
    """Length d of the input vector e."""
    pooled = sum(layout.dims[column.table] for column in layout.sequences) if with_sequences else 0
    return sum(layout.dims[column.table] for column in layout.ids) + pooled + len(layout.dense)
