"""Sequence encoders: from the embeddings of a history to one vector."""

from torch import Tensor, nn


class MeanPooling(nn.Module):
    """The mean of the embeddings that are not padding; zero for an empty history.

    Shape: (B, L, dim), mask (B, L) -> (B, dim)
    """

    def forward(self, embedded: Tensor, mask: Tensor) -> Tensor:
        weights = mask.to(embedded.dtype)
        total = (weights.unsqueeze(1) @ embedded).squeeze(1)
        return total / weights.sum(dim=1, keepdim=True).clamp(min=1)
