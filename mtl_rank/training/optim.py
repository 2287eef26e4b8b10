"""One torch optimizer: fused AdamW for the dense parameters, row-wise updates for the embedding tables."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RankingOptimizer(torch.optim.AdamW):
    """AdamW, and row-wise Adagrad on the parameters of `tables`, whose gradients are sparse.

    Row-wise Adagrad keeps one number per row r: s_r += mean(g_r^2), w_r -= lr * g_r / (sqrt(s_r) + eps).
    Rows that a batch does not name are not touched, so a step costs the same at any vocabulary size.
    `table_l2` adds l2 * w_r to the gradient of the touched rows.
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
        undecayed: Iterable[nn.Parameter] = (),
        undecayed_lr: float = 1e-2,
    ) -> None:
        groups = [
            {"params": list(dense), "weight_decay": weight_decay, "is_table": False},
            {"params": list(undecayed), "weight_decay": 0.0, "is_table": False, "lr": undecayed_lr},
            {"params": list(tables), "is_table": True, "lr": table_lr, "table_l2": table_l2},
        ]
        super().__init__([group for group in groups if group["params"]], lr=lr, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if group["is_table"]:
                for table in group["params"]:
                    self._step_table(table, group["lr"], group["table_l2"])
        super().step()
        return loss

    def _step_table(self, table: nn.Parameter, lr: float, l2: float) -> None:
        gradient = table.grad
        if gradient is None:
            return
        # AdamW passes over parameters without a gradient.
        table.grad = None
        rows, summed = sum_by_row(gradient)
        if not len(rows):
            return
        state = self.state[table]
        if "row_sum" not in state:
            state["row_sum"] = torch.zeros(len(table), device=table.device)
        values = table[rows]
        if l2:
            summed = summed.add_(values, alpha=l2)
        row_sum = state["row_sum"][rows] + (summed**2).mean(dim=1)
        state["row_sum"][rows] = row_sum
        table[rows] = values - lr * summed / (row_sum.sqrt() + self.EPS).unsqueeze(1)


def sum_by_row(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct rows (R,) and summed values (R, dim) of a sparse gradient.

    Sorting and summing runs is several times faster on CPUs than `coalesce`, and its order is fixed.
    """
    rows, values = gradient._indices()[0], gradient._values()
    ordered, order = torch.sort(rows, stable=True)
    distinct, counts = torch.unique_consecutive(ordered, return_counts=True)
    starts = counts.cumsum(0) - counts
    return distinct.long(), F.embedding_bag(order, values, starts, mode="sum")
