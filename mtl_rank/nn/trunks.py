"""Trunks: from the input vector e to one vector per task. Shape of each: (B, d) -> (B, T, width)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mtl_rank.config import Model
from mtl_rank.nn.layers import GroupedLinear, LayerOptions, Linear, StackedLinear, after_linear, hidden_layers


class Trunk(nn.Module):
    """A trunk.

    width: length of the vector that each task gets.
    experts_per_level: how many experts a task's gate mixes, per level; none without gates.
    """

    width: int
    experts_per_level: tuple[int, ...] = ()

    def gates(self, e: Tensor) -> list[Tensor]:
        """The weights that each task gives to its experts, per level (B, T, experts); none without gates."""
        del e
        return []


class WideFirst(nn.Module):
    """The first layers of K networks as one matrix product, then their own layers: f_1(e) .. f_K(e).

    Extra linear outputs (the gates of a mixture) ride along in the same product.

    Shape: (B, d) -> (B, K, widths[-1]), (B, extra)
    """

    def __init__(
        self, n_in: int, networks: int, widths: Sequence[int], options: LayerOptions, extra: int = 0
    ) -> None:
        super().__init__()
        self.networks = networks
        self.split = [networks * widths[0], extra]
        self.first = StackedLinear(n_in, [*[widths[0]] * networks, extra])
        self.after = nn.Sequential(*after_linear(networks, widths[0], options))
        self.rest = hidden_layers(networks, widths, options)

    def forward(self, e: Tensor) -> tuple[Tensor, Tensor]:
        hidden, extra = self.first(e).split(self.split, dim=1)
        return self.rest(self.after(hidden.unflatten(1, (self.networks, -1)))), extra


class SharedBottom(Trunk):
    """One network for all tasks (Caruana 1997)."""

    def __init__(self, n_in: int, tasks: int, widths: Sequence[int], options: LayerOptions) -> None:
        super().__init__()
        self.tasks = tasks
        self.width = widths[-1]
        self.bottom = WideFirst(n_in, 1, widths, options)

    def forward(self, e: Tensor) -> Tensor:
        shared: Tensor = self.bottom(e)[0]
        return shared.expand(-1, self.tasks, -1)


class Separate(Trunk):
    """A network of its own for each task; only the embeddings are shared. With one task: the plain DNN."""

    def __init__(self, n_in: int, tasks: int, widths: Sequence[int], options: LayerOptions) -> None:
        super().__init__()
        self.width = widths[-1]
        self.networks = WideFirst(n_in, tasks, widths, options)

    def forward(self, e: Tensor) -> Tensor:
        own: Tensor = self.networks(e)[0]
        return own


class MMoE(Trunk):
    """Multi-gate mixture of experts: sum_k g_k^t(e) f_k(e), g^t = softmax(W^t e + b^t) (Ma et al. 2018, eq. 5-7).

    one_gate: all tasks share one gate (OMoE, eq. 4), and with it the mixture.

    NOTE[DIFF] the gates have a bias, which the paper does not write: the mixture of a mean row is then free.
    """

    def __init__(
        self,
        n_in: int,
        tasks: int,
        experts: int,
        widths: Sequence[int],
        options: LayerOptions,
        one_gate: bool = False,
    ) -> None:
        super().__init__()
        self.tasks = tasks
        self.shape = (1 if one_gate else tasks, experts)
        self.experts_per_level = (experts,)
        self.width = widths[-1]
        self.experts = WideFirst(n_in, experts, widths, options, extra=self.shape[0] * experts)

    def forward(self, e: Tensor) -> Tensor:
        experts, gate_logits = self.experts(e)
        mixed: Tensor = self._gates(gate_logits).to(experts.dtype) @ experts
        return mixed.expand(-1, self.tasks, -1)

    def gates(self, e: Tensor) -> list[Tensor]:
        return [self._gates(self.experts(e)[1]).expand(-1, self.tasks, -1)]

    def _gates(self, logits: Tensor) -> Tensor:
        return torch.softmax(logits.reshape(-1, *self.shape), dim=2)


class PLE(Trunk):
    """Progressive layered extraction: levels of customised gate control (Tang et al. 2020, eq. 1-7).

    Each task has experts of its own beside the shared ones. A task's gate mixes its own and the shared experts;
    the shared gate mixes all, and the last level has none. At level j experts and gates of a task read what its
    gate gave at level j - 1, those that are shared what the shared gate gave. One level is CGC.

    NOTE[DIFF] the gates have a bias, as in MMoE above.
    """

    def __init__(
        self,
        n_in: int,
        tasks: int,
        own: int,
        shared: int,
        levels: int,
        widths: Sequence[int],
        options: LayerOptions,
    ) -> None:
        super().__init__()
        self.width = widths[-1]
        self.experts_per_level = (own + shared,) * levels
        self.mixing = [Mixing(tasks, own, shared, last=level == levels - 1) for level in range(levels)]
        first = self.mixing[0]
        self.first = WideFirst(n_in, first.experts, widths, options, extra=first.gate_outputs)
        self.deeper = nn.ModuleList(
            ExtractionLevel(self.width, mixing, widths, options) for mixing in self.mixing[1:]
        )

    def forward(self, e: Tensor) -> Tensor:
        mixed = self.mixing[0](*self.first(e))
        for level, mixing in zip(self.deeper, self.mixing[1:], strict=True):
            mixed = mixing(*level(mixed))
        return mixed

    def gates(self, e: Tensor) -> list[Tensor]:
        experts, logits = self.first(e)
        found = [self.mixing[0].task_gates(logits)]
        for i, level in enumerate(self.deeper):
            experts, logits = level(self.mixing[i](experts, logits))
            found.append(self.mixing[i + 1].task_gates(logits))
        return found


class Mixing:
    """How the gates of one level of PLE mix its experts, those of the tasks in front, the shared ones behind."""

    def __init__(self, tasks: int, own: int, shared: int, last: bool) -> None:
        self.tasks, self.own, self.shared, self.last = tasks, own, shared, last
        self.experts = tasks * own + shared
        self._gates = [tasks * (own + shared), 0 if last else self.experts]
        self.gate_outputs = sum(self._gates)

    def task_gates(self, logits: Tensor) -> Tensor:
        """(B, T, own + shared) from the outputs of all gates."""
        return self._softmax(torch.split(logits, self._gates, dim=1)[0])

    def _softmax(self, of_tasks: Tensor) -> Tensor:
        return torch.softmax(of_tasks.reshape(-1, self.tasks, self.own + self.shared), dim=2)

    def __call__(self, experts: Tensor, logits: Tensor) -> Tensor:
        """(B, K, width), (B, gate outputs) -> (B, T, width), with the shared mixture behind if it is not the last."""
        of_tasks, of_shared = torch.split(logits, self._gates, dim=1)
        gates = self._softmax(of_tasks).to(experts.dtype)
        gate_own, gate_shared = torch.split(gates, [self.own, self.shared], dim=2)
        own, shared = torch.split(experts, [self.tasks * self.own, self.shared], dim=1)
        by_task = own.reshape(-1, self.tasks, self.own, own.shape[2])
        mixed = (gate_own.unsqueeze(2) @ by_task).squeeze(2)
        mixed = mixed + gate_shared @ shared
        if self.last:
            return mixed
        gate = torch.softmax(of_shared, dim=1).to(experts.dtype).unsqueeze(1)
        return torch.cat([mixed, gate @ experts], dim=1)


class ExtractionLevel(nn.Module):
    """Experts and gates of a level of PLE beyond the first, where every task has an input of its own.

    Shape: (B, T + 1, n_in) -> (B, K, widths[-1]), (B, gate outputs)
    """

    def __init__(self, n_in: int, mixing: Mixing, widths: Sequence[int], options: LayerOptions) -> None:
        super().__init__()
        self.mixing = mixing
        self.networks = hidden_layers(mixing.experts, [n_in, *widths], options)
        self.task_gates = GroupedLinear(mixing.tasks, n_in, mixing.own + mixing.shared)
        self.shared_gate = None if mixing.last else Linear(n_in, mixing.experts)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        of_tasks, of_shared = torch.split(x, [self.mixing.tasks, 1], dim=1)
        inputs = [
            of_tasks.repeat_interleave(self.mixing.own, dim=1),
            of_shared.expand(-1, self.mixing.shared, -1),
        ]
        logits = self.task_gates(of_tasks).flatten(1)
        if self.shared_gate is not None:
            logits = torch.cat([logits, self.shared_gate(of_shared.squeeze(1))], dim=1)
        return self.networks(torch.cat(inputs, dim=1)), logits


# (input width, number of tasks, options) -> trunk
TRUNKS: dict[str, Callable[[int, int, Model], Trunk]] = {
    "dnn": lambda d, tasks, m: Separate(d, tasks, m.bottom_layers, LayerOptions.of(m)),
    "shared_bottom": lambda d, tasks, m: SharedBottom(d, tasks, m.bottom_layers, LayerOptions.of(m)),
    "omoe": lambda d, tasks, m: MMoE(d, tasks, m.experts, m.expert_layers, LayerOptions.of(m), one_gate=True),
    "mmoe": lambda d, tasks, m: MMoE(d, tasks, m.experts, m.expert_layers, LayerOptions.of(m)),
    "ple": lambda d, tasks, m: PLE(
        d, tasks, m.task_experts, m.experts, m.levels, m.expert_layers, LayerOptions.of(m)
    ),
}
