"""Deep interest evolution network: interests and their evolution by two GRUs (Zhou et al. 2019)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtl_rank.nn.history import Encoded, History, HistoryEncoder
from mtl_rank.nn.layers import Linear


class DIEN(HistoryEncoder):
    """h = GRU(history); a = softmax of h_t W q over what is there (eq. 9); the last state of AUGRU(h, a) (eq. 11).

    In training the auxiliary loss holds each h_t near the next behaviour and away from another one (eq. 7).
    Recurrent layers run in float32: rounding would add up along the history.

    Shape: History without gaps -> (B, dim)
    """

    def __init__(self, dim: int, auxiliary: float) -> None:
        super().__init__()
        self.extractor = nn.GRU(dim, dim, batch_first=True)
        self.match = Linear(dim, dim, bias=False)
        self.evolution = AUGRU(dim)
        self.auxiliary = auxiliary

    def forward(self, history: History) -> Encoded:
        with torch.autocast(history.keys.device.type, enabled=False):
            states = self._states(history)
            vector = self.evolution(states, self._weights(states, history))
            loss = self._next_behaviour(states, history) if self.training and self.auxiliary else None
        return Encoded(vector, loss)

    def attention(self, history: History) -> Tensor:
        """(B, L) the weight of each position, 0 where there is none; they sum to one."""
        with torch.autocast(history.keys.device.type, enabled=False):
            return self._weights(self._states(history), history)

    def _states(self, history: History) -> Tensor:
        states: Tensor = self.extractor(history.keys.float())[0]
        return states

    def _weights(self, states: Tensor, history: History) -> Tensor:
        assert history.target is not None
        query = self.match(history.target.float())
        scores = (states @ query.unsqueeze(2)).squeeze(2)
        # A row without history has zeros, not the softmax of nothing.
        lowest = torch.finfo(scores.dtype).min
        return torch.softmax(scores.masked_fill(~history.mask, lowest), dim=1) * history.mask

    def _next_behaviour(self, states: Tensor, history: History) -> Tensor:
        """-mean [log sigmoid(h_t . e_{t+1}) + log(1 - sigmoid(h_t . e'))] over steps that have a next one.

        NOTE[DIFF] e' is drawn from what the batch's histories hold, so in proportion to how often an id occurs, and
        never the next one itself: the rows of the batch are the only ones that are touched.
        NOTE[DIFF] a mean over steps, where the paper sums over a row's: its weight does not grow with the history.
        """
        positions = history.mask.flatten().nonzero().squeeze(1)
        if not len(positions) or states.shape[1] < 2:
            return states.sum() * 0
        ids, keys = history.ids[:, 1:], history.keys.float()
        drawn = positions[torch.randint(len(positions), ids.shape, device=ids.device)]
        # As an embedding look-up, whose gradient is summed in a fixed order.
        others = F.embedding(drawn, keys.flatten(0, 1))
        counts = history.mask[:, 1:] & (history.ids.flatten()[drawn] != ids)
        before = states[:, :-1]
        each = F.softplus(-(before * keys[:, 1:]).sum(dim=2)) + F.softplus((before * others).sum(dim=2))
        return self.auxiliary * (each * counts).sum() / counts.sum().clamp(min=1)


class AUGRU(nn.Module):
    """A GRU whose update gate is scaled by attention: u' = a u, h' = (1 - u') h + u' c (eq. 11).

    u, r = sigmoid(W x + U h + b), c = tanh(W x + b + r * U h). Inputs meet their matrices in one product before the
    loop over positions, which runs once for the whole batch. Where a = 0, as at padding, the state stays.

    Shape: (B, L, dim), attention (B, L) -> (B, dim)
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.of_input = Linear(dim, 3 * dim)
        self.of_state = Linear(dim, 3 * dim, bias=False)

    def forward(self, x: Tensor, attention: Tensor) -> Tensor:
        gates, candidates = self.of_input(x).split([2 * self.dim, self.dim], dim=2)
        h = torch.zeros_like(x[:, 0])
        for gate, candidate, a in zip(
            gates.unbind(1), candidates.unbind(1), attention.unsqueeze(2).unbind(1), strict=True
        ):
            h_gate, h_candidate = self.of_state(h).split([2 * self.dim, self.dim], dim=1)
            u, r = torch.sigmoid(gate + h_gate).chunk(2, dim=1)
            h = torch.lerp(h, torch.tanh(candidate + r * h_candidate), a * u)
        return h
