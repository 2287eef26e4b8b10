"""Behaviour sequence transformer: history and candidate look at each other (Chen et al. 2019)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtl_rank.nn.history import Encoded, History, HistoryEncoder
from mtl_rank.nn.layers import Linear
from mtl_rank.nn.layout import GAP_BUCKETS


class BST(HistoryEncoder):
    """Transformer blocks over [candidate; history]; the candidate's output joins e.

    timed: positions are pos(v_j) = t(candidate) - t(v_j), in buckets (`GAP_BUCKETS`). Without times they count back
    from the candidate: 0 is the candidate, 1 the most recent behaviour.

    NOTE[DIFF] a gap is a bucket of its logarithm: the paper does not say how a time becomes a vector.
    NOTE[DIFF] index positions for a history that comes without times.
    NOTE[DIFF] figure 1 joins the outputs of all positions to e; section 2.3 speaks of the target item's, which is
    taken here, so that the width of e does not grow with the history.
    NOTE[DIFF] the positions' vectors are added to the embeddings, not put beside them, so that the width stays.

    Shape: History without gaps -> (B, dim)
    """

    def __init__(
        self, dim: int, longest: int, blocks: int, heads: int, dropout: float, timed: bool = False
    ) -> None:
        super().__init__()
        self.timed = timed
        count = GAP_BUCKETS if timed else longest + 1
        self.positions = nn.Parameter(torch.empty(count, dim).normal_(std=0.01))
        self.blocks = nn.ModuleList(TransformerBlock(dim, heads, dropout) for _ in range(blocks - 1))
        self.last = TransformerBlock(dim, heads, dropout)

    def forward(self, history: History) -> Encoded:
        x, mask = self._tokens(history)
        # Only the candidate's output is read: of the last block only its row is computed.
        return Encoded(self.last(x[:, :1], x, mask).squeeze(1))

    def attention(self, history: History) -> Tensor:
        """(B, L) how much the candidate looks at each position in the last block, mean of the heads."""
        x, mask = self._tokens(history)
        weights = self.last.attention(x[:, :1], x, mask)[0]
        return weights.mean(dim=1).squeeze(1)[:, 1:]

    def _tokens(self, history: History) -> tuple[Tensor, Tensor]:
        """What the last block reads, the candidate first: (B, 1 + L, dim), and (B, 1 + L) what is there."""
        assert history.target is not None
        positions = F.pad(self._positions(history), (1, 0))
        tokens = torch.cat([history.target.unsqueeze(1), history.keys], dim=1)
        x, mask = tokens + F.embedding(positions, self.positions), F.pad(history.mask, (1, 0), value=True)
        for block in self.blocks:
            x = block(x, x, mask)
        return x, mask

    def _positions(self, history: History) -> Tensor:
        """(B, L)"""
        if self.timed:
            assert history.gaps is not None
            return history.gaps
        count = history.mask.sum(dim=1, keepdim=True)
        back = count - torch.arange(history.mask.shape[1], device=count.device)
        return back.clamp(0, len(self.positions) - 1)


class TransformerBlock(nn.Module):
    """S' = LN(x + MH(x)), F = LN(S' + W_2 LeakyReLU(W_1 S')) (eq. 2-6), dropout on what is added.

    Shape: queries (B, Q, dim), tokens (B, N, dim), mask (B, N) -> (B, Q, dim)
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query = Linear(dim, dim)
        self.key = Linear(dim, dim)
        self.value = Linear(dim, dim)
        self.joined = Linear(dim, dim)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
        self.feed_forward = nn.Sequential(Linear(dim, 4 * dim), nn.LeakyReLU(), Linear(4 * dim, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, queries: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        weights, values = self.attention(queries, tokens, mask)
        looked_at = (weights @ values).transpose(1, 2).flatten(2)
        x = self.norms[0](queries + self.dropout(self.joined(looked_at)))
        out: Tensor = self.norms[1](x + self.dropout(self.feed_forward(x)))
        return out

    def attention(self, queries: Tensor, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """softmax(Q K^T / sqrt(width of a head)) (B, heads, Q, N) and V (B, heads, N, width of a head)."""
        q, k, v = (
            projected.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for projected in (self.query(queries), self.key(tokens), self.value(tokens))
        )
        scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[3])
        hidden = ~mask[:, None, None, :]
        weights = torch.softmax(scores.masked_fill(hidden, torch.finfo(scores.dtype).min), dim=3)
        return weights.to(v.dtype), v
