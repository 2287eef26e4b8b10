"""Per-task losses: each masked, each a mean over the rows that count."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtl_rank.config import Task
from mtl_rank.training.distributed import mean_over_processes


def _bce(logits: Tensor, targets: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def _mse(values: Tensor, targets: Tensor) -> Tensor:
    return (values - targets) ** 2


def _huber(values: Tensor, targets: Tensor) -> Tensor:
    return F.huber_loss(values, targets, reduction="none")


LOSSES = {"bce": _bce, "mse": _mse, "huber": _huber}


def loss_name(task: Task) -> str:
    """The loss of a task: its own choice, or bce for binary and mse for regression tasks."""
    return task.loss or ("bce" if task.kind == "binary" else "mse")


class TaskLosses(nn.Module):
    """Mean loss of each task over the rows where its label is not NaN; exactly 0 where there is none.

    With several processes it is this process's sum over the mean count of all: the mean of these losses over
    the processes is the loss of the global batch, however unevenly the rows of a task are spread.

    Shape: logits (B, T), labels (B, T) -> (T,)
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        super().__init__()
        names = [loss_name(task) for task in tasks]
        self._columns = {
            name: [i for i, other in enumerate(names) if other == name] for name in dict.fromkeys(names)
        }

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        defined = ~torch.isnan(labels)
        targets = torch.nan_to_num(labels)
        if len(self._columns) == 1:
            (name,) = self._columns
            each = LOSSES[name](logits, targets)
        else:
            each = torch.zeros_like(logits)
            for name, columns in self._columns.items():
                each = each.index_copy(
                    1,
                    torch.tensor(columns, device=logits.device),
                    LOSSES[name](logits[:, columns], targets[:, columns]),
                )
        total = torch.where(defined, each, 0).sum(dim=0)
        count = defined.sum(dim=0).to(total.dtype)
        # With no row at all the sum is 0 as well.
        return total / mean_over_processes(count).clamp(min=1e-6)
