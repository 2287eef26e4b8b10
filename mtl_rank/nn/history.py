"""What a sequence encoder reads and gives."""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class History(NamedTuple):
    """One sequence input of a batch.

    keys: (B, L, dim) its embeddings. ids: (B, L). mask: (B, L), True where there is an id.
    target: (B, dim), the embedding of the id column whose rows it shares; None without one.
    gaps: (B, L), buckets of the time from each position to the candidate; None for a history without times.
    """

    keys: Tensor
    ids: Tensor
    mask: Tensor
    target: Tensor | None
    gaps: Tensor | None = None


class Encoded(NamedTuple):
    """vector: (B, dim). auxiliary: a loss of the encoder's own, in training; None = there is none."""

    vector: Tensor
    auxiliary: Tensor | None = None


class HistoryEncoder(nn.Module):
    """A sequence encoder.

    Shape: History -> Encoded
    """

    def attention(self, history: History) -> Tensor | None:
        """(B, L) the weight of each position, 0 where there is none; None when it does not attend."""
        del history
        return None


class MeanPooling(HistoryEncoder):
    """The mean of the embeddings that are not padding; zero for an empty history.

    Shape: History -> (B, dim)
    """

    def forward(self, history: History) -> Encoded:
        return Encoded(masked_mean(history.keys, history.mask))


def masked_mean(embedded: Tensor, mask: Tensor) -> Tensor:
    """(B, L, dim), (B, L) -> (B, dim): the mean of what is there, zero where nothing is."""
    weights = mask.to(embedded.dtype)
    total = (weights.unsqueeze(1) @ embedded).squeeze(1)
    return total / weights.sum(dim=1, keepdim=True).clamp(min=1)


def in_front(values: Tensor, mask: Tensor) -> Tensor:
    """(B, L), (B, L) -> (B, L): the values where the mask is True in their order, zeros behind them."""
    return torch.zeros_like(values).scatter(1, _places(mask), values * mask)


def without_gaps(ids: Tensor, pad_id: int) -> Tensor:
    """(B, L) -> (B, L): the ids in their order with the padding behind them."""
    return torch.full_like(ids, pad_id).scatter(1, _places(ids != pad_id), ids)


def _places(mask: Tensor) -> Tensor:
    """(B, L) -> (B, L): where each value goes when those of the mask come first, order kept.

    By counting: exporters know no stable sort.
    """
    there = mask.long()
    before = there.cumsum(dim=1) - there
    missing_before = torch.arange(mask.shape[1], device=mask.device) - before
    return torch.where(mask, before, there.sum(dim=1, keepdim=True) + missing_before)
