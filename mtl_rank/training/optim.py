"""One torch optimizer: fused AdamW for the dense parameters, row-sparse updates for the embedding tables."""

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Rule = Literal["adagrad", "adam"]
Schedule = Literal["constant", "restarts", "linear", "cosine"]


class RankingOptimizer(torch.optim.AdamW):
    """AdamW, and a row-sparse rule on the parameters of `tables`, whose gradients are sparse.

    Only rows that a batch names are touched, so a step costs the same at any vocabulary size.

    adagrad: row-wise, one number of state per row: s_r += mean(g_r^2), w_r -= lr g_r / (sqrt(s_r) + eps).
    adam: lazy; moments of touched rows alone advance, bias-corrected by the number of steps.
    table_l2: adds l2 * w_r to the gradient of the touched rows.
    clip_norm: scales all gradients of a step, those of the tables included, down to this norm.
    """

    EPS = 1e-10

    def __init__(
        self,
        dense: Iterable[nn.Parameter],
        tables: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float,
        table_lr: float,
        table_l2: float,
        table_rule: Rule = "adagrad",
        clip_norm: float | None = None,
        undecayed: Iterable[nn.Parameter] = (),
        undecayed_lr: float = 1e-2,
    ) -> None:
        groups: list[dict[str, Any]] = [
            {"params": list(dense), "weight_decay": weight_decay, "is_table": False},
            {"params": list(undecayed), "weight_decay": 0.0, "is_table": False, "lr": undecayed_lr},
            {"params": list(tables), "is_table": True, "lr": table_lr, "table_l2": table_l2},
        ]
        super().__init__([group for group in groups if group["params"]], lr=lr, fused=True)
        self._rule = table_rule
        self._clip_norm = clip_norm

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        rows = self._take_table_gradients()
        if self._clip_norm is not None:
            self._clip(self._clip_norm, [values for _, _, _, values in rows])
        for table, group, index, values in rows:
            update = self._adagrad if self._rule == "adagrad" else self._adam
            update(table, group["lr"], index, values)
        super().step()
        return loss

    def _take_table_gradients(self) -> list[tuple[nn.Parameter, dict[str, Any], Tensor, Tensor]]:
        """(table, group, distinct rows (R,), summed gradients (R, dim) with L2) of every table."""
        found = []
        for group in self.param_groups:
            for table in group["params"] if group["is_table"] else ():
                if table.grad is None:
                    continue
                index, values = sum_by_row(table.grad)
                # AdamW passes over parameters without a gradient.
                table.grad = None
                if group["table_l2"]:
                    values = values.add_(table[index], alpha=group["table_l2"])
                found.append((table, group, index, values))
        return found

    def _clip(self, limit: float, of_tables: list[Tensor]) -> None:
        of_dense = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        gradients = [*of_dense, *of_tables]
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
        factor = (limit / (norm + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(factor)

    def _adagrad(self, table: nn.Parameter, lr: float, index: Tensor, gradient: Tensor) -> None:
        state = self._table_state(table)
        if "row_sum" not in state:
            state["row_sum"] = torch.zeros(len(table), device=table.device)
        row_sum = state["row_sum"][index] + (gradient**2).mean(dim=1)
        state["row_sum"][index] = row_sum
        table[index] -= lr * gradient / (row_sum.sqrt() + self.EPS).unsqueeze(1)

    def _adam(self, table: nn.Parameter, lr: float, index: Tensor, gradient: Tensor) -> None:
        state = self._table_state(table)
        if "row_mean" not in state:
            state["row_mean"] = torch.zeros_like(table)
            state["row_square"] = torch.zeros_like(table)
        beta1, beta2 = self.defaults["betas"]
        steps = float(state["step"])
        mean = state["row_mean"][index].lerp_(gradient, 1 - beta1)
        square = state["row_square"][index].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        state["row_mean"][index], state["row_square"][index] = mean, square
        scale = math.sqrt(1 - beta2**steps) / (1 - beta1**steps)
        table[index] -= lr * scale * mean / (square.sqrt() + self.defaults["eps"])

    def _table_state(self, table: nn.Parameter) -> dict[str, Any]:
        """The state of a table, one step on. AdamW, when it is loaded, wants a `step` in every state."""
        state: dict[str, Any] = self.state[table]
        state["step"] = state.get("step", torch.zeros(())) + 1
        return state


def sum_by_row(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct rows (R,) and summed values (R, dim) of a sparse gradient.

    Sorting and summing runs is several times faster on CPUs than `coalesce`, and its order is fixed.
    """
    rows, values = gradient._indices()[0], gradient._values()
    ordered, order = torch.sort(rows, stable=True)
    distinct, counts = torch.unique_consecutive(ordered, return_counts=True)
    starts = counts.cumsum(0) - counts
    return distinct.long(), F.embedding_bag(order, values, starts, mode="sum")


def learning_rate_factor(step: int, epoch: int, epochs: int, warmup: int, schedule: Schedule) -> float:
    """What every learning rate is multiplied by at `step`: a linear rise over `warmup` steps, then the schedule.

    epoch: steps of one. `restarts` falls along a cosine to a tenth within each epoch (Loshchilov & Hutter 2017,
    with a period of one epoch): every epoch then ends in weights that have settled, so that the epochs can be
    compared and the kept one is calibrated.
    """
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    if schedule == "restarts":
        return 0.1 + 0.9 * _cosine(step % epoch / epoch)
    done = min((step - warmup) / max(epoch * epochs - warmup, 1), 1.0)
    return 1 - done if schedule == "linear" else _cosine(done)


def _cosine(done: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * done))
