"""Per-task losses: each masked, each a mean over the rows that count."""

import math
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

    weights: how much each row counts; the mean is the weighted one.

    With several processes it is this process's sum over the mean count of all: the mean of these losses over
    the processes is the loss of the global batch, however unevenly the rows of a task are spread.

    sampled: (task, share) when of that task's negative rows only a share is trained on. The loss of that task
    sees logit - log(share), which is the logit among the rows that were kept: the network's own logit is then
    that of all rows, and predictions need no correction (King & Zeng 2001, eq. 7). For every other task the
    negatives that were kept count 1 / share, so that its loss is that over all rows in expectation.

    Shape: logits (B, T), labels (B, T), weights (B,) -> (T,)
    """

    def __init__(self, tasks: Sequence[Task], sampled: tuple[int, float] | None = None) -> None:
        super().__init__()
        self._sampled = sampled
        names = [loss_name(task) for task in tasks]
        self._columns = {
            name: [i for i, other in enumerate(names) if other == name] for name in dict.fromkeys(names)
        }

    def forward(self, logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        defined = ~torch.isnan(labels)
        targets = torch.nan_to_num(labels)
        if self._sampled is not None:
            logits = logits - self._shift(logits)
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
        counts = defined.to(each.dtype)
        if weights is not None:
            counts = counts * weights.unsqueeze(1)
        if self._sampled is not None:
            counts = counts * self._importance(labels)
        total = (torch.where(defined, each, 0) * counts).sum(dim=0)
        # With no row at all the sum is 0 as well.
        return total / mean_over_processes(counts.sum(dim=0)).clamp(min=torch.finfo(total.dtype).tiny)

    def _shift(self, logits: Tensor) -> Tensor:
        """(T,) log(share) for the sampled task, 0 for the others."""
        assert self._sampled is not None
        task, share = self._sampled
        shift = torch.zeros(logits.shape[1], device=logits.device)
        shift[task] = math.log(share)
        return shift

    def _importance(self, labels: Tensor) -> Tensor:
        """(B, T) how many rows each row stands for: 1 / share for a negative that was kept, but to its own task."""
        assert self._sampled is not None
        task, share = self._sampled
        importance = torch.where(labels[:, task : task + 1] == 0, 1 / share, 1.0).repeat(1, labels.shape[1])
        importance[:, task] = 1.0
        return importance
