"""Heads: from one vector per task to one logit per task."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtl_rank.nn.layers import GroupedLinear, hidden_layers


class Towers(nn.Module):
    """A small network per task ending in one logit.

    prior: (T,) the logit of each task's base rate (0 for a standardised regression target). The output bias
    starts there, so that a rare task does not spend its first epochs, and its calibration, on finding it.

    Shape: (B, T, width) -> (B, T)
    """

    def __init__(self, width: int, layers: Sequence[int], prior: Tensor, dropout: float) -> None:
        super().__init__()
        widths = [width, *layers]
        self.hidden = hidden_layers(len(prior), widths, dropout)
        self.output = GroupedLinear(len(prior), widths[-1], 1)
        with torch.no_grad():
            self.output.bias.copy_(prior.view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.output(self.hidden(x))
        return logits.squeeze(2).float()
