"""Per-task losses: each masked, each a mean over the rows that count."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtl_rank.config import Loss, Task
from mtl_rank.config.tasks import default_loss
from mtl_rank.data.labels import Target
from mtl_rank.nn.columns import Columns
from mtl_rank.training.distributed import mean_over_processes
from mtl_rank.training.losses.classes import ClassLoss
from mtl_rank.training.losses.lognormal import Spread
from mtl_rank.training.losses.pointwise import LOSSES


def loss_of(task: Task, target: Target | None = None) -> Loss:
    """The loss of a task: its own choice, or the default of its kind.

    `balanced` becomes numbers: each class has half of the weight, and the mean weight of a row is 1.
    """
    loss = task.loss or default_loss(task.kind)
    if not loss.balanced:
        return loss
    assert target is not None
    return Loss(name=loss.name, w1=0.5 / target.mean, w0=0.5 / (1 - target.mean), smoothing=loss.smoothing)


class TaskLosses(nn.Module):
    """Mean loss of each task over the rows where its label is not NaN; exactly 0 where there is none.

    weights: how much each row counts; the mean is the weighted one. A task with `mean_over: batch` has the same sum
    over what all rows count, its label known or not: its mean loss times the share of the batch where it is defined.

    With several processes it is this process's sum over the mean count of all: the mean of these losses over
    the processes is the loss of the global batch, however unevenly the rows of a task are spread.

    What a loss compares with the label is the network's output, shifted so that the output itself is the
    prediction and needs no correction afterwards:
    - sampled: (task, share) when of that task's negative rows only a share is trained on. Its loss sees
      logit - log(share), the logit among the rows that were kept (King & Zeng 2001, eq. 7). For every other task
      the negatives that were kept count 1 / share, so that its loss is that over all rows in expectation.
    - weighted_bce: logit + log(w1 / w0), the logit among rows that count w1 and w0 times.
      NOTE[DIFF] the plain formula predicts those odds, w1 / w0 times too high.
    - lognormal: the log of the mean less sigma^2 / 2, see `Spread`.
    Label smoothing moves labels towards the base rate (Szegedy et al. 2016, sec. 7, with the prior in place of the
    uniform distribution), which leaves their mean. Focal loss has its minimum elsewhere than at the true
    probability, and nothing here puts that right.

    A task with `inverse_propensity` is trained on the rows it is defined on so as to have the loss of every row: each
    counts 1 / p, p the predicted probability that it is such a row, clipped from below (ESCM2-IPS, Wang et al. 2022).
    NOTE[DIFF] divided by the sum of these weights, not by the number of rows: self-normalised, so that clipping does
    not make the loss smaller. With `mean_over: batch` it is the paper's.

    targets: the fitted tasks, which `balanced`, smoothing and lognormal take their numbers from.

    Shape: logits (B, C), one per task or as `Columns` says, labels (B, T), weights (B,) -> (T,)
    """

    shift: Tensor
    smoothing: Tensor
    rates: Tensor
    over_batch: Tensor

    def __init__(
        self,
        tasks: Sequence[Task],
        sampled: tuple[int, float] | None = None,
        targets: Sequence[Target] | None = None,
    ) -> None:
        super().__init__()
        self._sampled = sampled
        losses = [loss_of(task, targets[i] if targets is not None else None) for i, task in enumerate(tasks)]
        self._classes = [
            ClassLoss(i, task.kind, own, loss.smoothing, targets[i].rates if targets is not None else ())
            for i, (task, loss, own) in enumerate(zip(tasks, losses, Columns.of(tasks).of_task, strict=True))
            if task.has_classes
        ]
        # The label of a class is no number: neither shifted nor smoothed as one.
        pointwise = [loss for loss in losses if loss.name in LOSSES]
        self._columns = {
            loss: [i for i, other in enumerate(losses) if other == loss] for loss in dict.fromkeys(pointwise)
        }
        shift = torch.tensor([math.log(loss.w1 / loss.w0) for loss in losses])
        if sampled is not None:
            shift[sampled[0]] -= math.log(sampled[1])
        self._shifted = bool(shift.any())
        self.register_buffer("shift", shift, persistent=False)
        smoothing = [loss.smoothing if loss.name in LOSSES else 0.0 for loss in losses]
        self._smoothed = any(smoothing)
        self.register_buffer("smoothing", torch.tensor(smoothing), persistent=False)
        rates = [target.mean for target in targets] if targets is not None else [0.5] * len(losses)
        self.register_buffer("rates", torch.tensor(rates, dtype=torch.float32), persistent=False)
        self._propensities = _propensities(tasks, targets)
        over_batch = [task.mean_over == "batch" for task in tasks]
        self._any_over_batch = any(over_batch)
        self.register_buffer("over_batch", torch.tensor(over_batch), persistent=False)
        self._lognormal = [i for i, loss in enumerate(losses) if loss.name == "lognormal"]
        self.spread = (
            Spread([targets[i].std if targets is not None else 1.0 for i in self._lognormal])
            if self._lognormal
            else None
        )

    def forward(self, logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        defined = ~torch.isnan(labels)
        targets = torch.nan_to_num(labels)
        stand_for = self._stand_for(labels, weights, logits)
        counts = self._counts(defined, stand_for, logits)
        of_classes = [loss(logits, targets) for loss in self._classes]
        if of_classes:
            logits = logits[:, : labels.shape[1]]
        if self.spread is not None and self.training:
            columns = self._lognormal
            self.spread.update((logits - targets)[:, columns], counts[:, columns])
        outputs = self.location(logits)
        if self._shifted:
            outputs = outputs + self.shift
        if self._smoothed:
            targets = torch.lerp(targets, self.rates.to(targets.dtype), self.smoothing.to(targets.dtype))
        each = self._each(outputs, targets)
        for loss, found in zip(self._classes, of_classes, strict=True):
            each = each.index_copy(1, torch.tensor([loss.task], device=each.device), found.unsqueeze(1))
        total = (torch.where(defined, each, 0) * counts).sum(dim=0)
        rows = counts.sum(dim=0)
        if self._any_over_batch:
            rows = torch.where(self.over_batch, stand_for.sum(dim=0), rows)
        # With no row at all the sum is 0 as well.
        return total / mean_over_processes(rows).clamp(min=torch.finfo(total.dtype).tiny)

    def location(self, logits: Tensor) -> Tensor:
        """(B, C) on the scale of the encoded labels: for lognormal the mean of the logarithms."""
        if self.spread is None:
            return logits
        columns = torch.tensor(self._lognormal, device=logits.device)
        return logits.index_add(1, columns, -self.spread().to(logits.dtype).expand(len(logits), -1))

    def _each(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(B, T) the loss of each row; 0 for tasks with classes."""
        if len(self._columns) == 1 and not self._classes:
            (loss,) = self._columns
            return LOSSES[loss.name](loss, outputs, targets)
        each = torch.zeros_like(outputs)
        for loss, columns in self._columns.items():
            found = LOSSES[loss.name](loss, outputs[:, columns], targets[:, columns])
            each = each.index_copy(1, torch.tensor(columns, device=outputs.device), found)
        return each

    def _stand_for(self, labels: Tensor, weights: Tensor | None, logits: Tensor) -> Tensor:
        """(B, T) or (B, 1): how many rows each one stands for, by its weight and the sampling of negatives."""
        rows = logits.new_ones(len(labels), 1) if weights is None else weights.unsqueeze(1)
        if self._sampled is None:
            return rows
        task, share = self._sampled
        # 1 / share for a negative that was kept, but to its own task.
        sampled = torch.where(labels[:, task : task + 1] == 0, 1 / share, 1.0).repeat(1, labels.shape[1])
        sampled[:, task] = 1.0
        return rows * sampled

    def _counts(self, defined: Tensor, stand_for: Tensor, logits: Tensor) -> Tensor:
        """(B, T) how much each row counts for each task, 0 where it is undefined."""
        counts = defined.to(logits.dtype) * stand_for
        if self._propensities:
            log_p = F.logsigmoid(logits.detach())
            for task, (ancestors, least) in self._propensities.items():
                counts[:, task] /= log_p[:, ancestors].sum(dim=1).exp().clamp(min=least)
        return counts


def _propensities(
    tasks: Sequence[Task], targets: Sequence[Target] | None
) -> dict[int, tuple[list[int], float]]:
    """Per task that asks for it the positions of its ancestors, and the least propensity."""
    found = {}
    for i, task in enumerate(tasks):
        if task.inverse_propensity is None:
            continue
        assert targets is not None
        ancestors: list[int] = []
        parent = targets[i].given
        while parent is not None:
            ancestors.append(parent)
            parent = targets[parent].given
        found[i] = (ancestors, task.inverse_propensity)
    return found
