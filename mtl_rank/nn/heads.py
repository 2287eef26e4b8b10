"""Heads: from one vector per task to the logits of each task, and what the losses see of them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtl_rank.config import Model, Task
from mtl_rank.nn.columns import Columns
from mtl_rank.nn.layers import GroupedLinear, LayerOptions, Linear, PerTask, hidden_layers


@dataclass(frozen=True)
class Relations:
    """How the tasks hang together.

    given: per task the position of its parent. binary: per task its kind. columns: the logits of each.
    """

    given: tuple[int | None, ...]
    binary: tuple[bool, ...]
    columns: Columns

    @staticmethod
    def of(tasks: Mapping[str, Task]) -> "Relations":
        names = list(tasks)
        return Relations(
            given=tuple(None if task.given is None else names.index(task.given) for task in tasks.values()),
            binary=tuple(task.kind == "binary" for task in tasks.values()),
            columns=Columns.of(tasks.values()),
        )

    @staticmethod
    def none(tasks: int) -> "Relations":
        """So many binary tasks that have nothing to do with each other."""
        return Relations((None,) * tasks, (True,) * tasks, Columns.plain(tasks))


class Towers(nn.Module):
    """A small network per task ending in one logit: z_t = w_t . [tower_t(x_t); branch vectors] + b_t.

    A multiclass task's ends in a logit per class. An ordinal task's ends in one, which `cumulated` makes several of.

    prior: (C,) where each column starts: the logit of a task's base rate (0 for a standardised regression target).
    The output bias starts there, so that a rare task does not spend its first epochs, and its calibration, on
    finding it. of_branches: length of the branch vectors, 0 = none. columns: None = one per task.

    Shape: (B, T, width), (B, of_branches) or None -> (B, columns.towers), without classes (B, T)
    """

    def __init__(
        self,
        width: int,
        layers: Sequence[int],
        prior: Tensor,
        options: LayerOptions,
        of_branches: int = 0,
        columns: Columns | None = None,
    ) -> None:
        super().__init__()
        columns = columns or Columns.plain(len(prior))
        tasks, widths = len(columns.of_task), [width, *layers]
        # Every tower ends as wide as the widest; of the others the rest is not read.
        widest = max(map(len, columns.of_towers))
        places = {
            column: task * widest + i
            for task, of_task in enumerate(columns.of_towers)
            for i, column in enumerate(of_task)
        }
        self._read = [places[column] for column in range(columns.towers)]
        self._one_each = widest == 1
        self.hidden = hidden_layers(tasks, widths, options)
        self.output = GroupedLinear(tasks, widths[-1], widest)
        self.of_branches = PerTask(of_branches, columns.towers) if of_branches else None
        self.cut_points = CutPoints(columns) if columns.cut else None
        self.start_at(prior)
        if self.of_branches is not None:
            # One output of both lengths together: it starts as one matrix would.
            bound = 1 / math.sqrt(widths[-1] + of_branches)
            nn.init.uniform_(self.output.weight, -bound, bound)
            nn.init.uniform_(self.of_branches.weight, -bound, bound)

    @torch.no_grad()
    def start_at(self, prior: Tensor) -> None:
        """Set the output biases, and the distances of cut points."""
        self.output.bias.zero_()
        self.output.bias.view(-1)[self._read] = prior[: len(self._read)]
        if self.cut_points is not None:
            self.cut_points.start_at(prior)

    def forward(self, x: Tensor, vectors: Tensor | None = None) -> Tensor:
        hidden = self.hidden(x)
        if self.training:
            found: Tensor = self.output(hidden)
        else:
            # In bf16 a logit has 8 binary digits: many candidates of a user would have one score.
            with torch.autocast(hidden.device.type, enabled=False):
                found = self.output(hidden.float())
        logits = (found.squeeze(2) if self._one_each else found.flatten(1)[:, self._read]).float()
        if self.of_branches is not None and vectors is not None:
            logits = logits + self.of_branches(vectors).float()
        return logits

    def cumulated(self, logits: Tensor) -> Tensor:
        """What the network predicts, all of its columns: (B, columns.towers) -> (B, C)."""
        return logits if self.cut_points is None else self.cut_points(logits)

    def objective(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(logits (B, C), labels (B, T)) that the losses compare; NaN labels count nowhere. Here: as they are."""
        return logits, labels

    def auxiliary(self, logits: Tensor) -> Tensor | None:
        """A loss of the head's own, added to the weighted losses of the tasks; None = there is none."""
        del logits
        return None


class CutPoints(nn.Module):
    """Cumulative logits of ordinal tasks: logit P(y > class k) = z - c_k with c rising (McCullagh 1980, sec. 2).

    The distance of two cut points is the exponential of a parameter, so that they never cross. The first one is in
    the bias of the task's tower: its column is z itself.

    Shape: (B, columns.towers) -> (B, C)
    """

    def __init__(self, columns: Columns) -> None:
        super().__init__()
        self._columns = columns
        self._sizes = [len(columns.of_task[task]) - 1 for task in columns.cut]
        self.log_distances = nn.Parameter(torch.zeros(sum(self._sizes)))

    @torch.no_grad()
    def start_at(self, prior: Tensor) -> None:
        of_tasks = [-torch.diff(prior[list(self._columns.of_task[task])]) for task in self._columns.cut]
        self.log_distances.copy_(torch.cat(of_tasks).clamp(min=1e-3).log())

    def forward(self, logits: Tensor) -> Tensor:
        distances = torch.split(self.log_distances.exp(), self._sizes)
        further = [
            logits[:, task : task + 1] - of_task.cumsum(dim=0)
            for task, of_task in zip(self._columns.cut, distances, strict=True)
        ]
        return torch.cat([logits, *further], dim=1)


class ESMM(Towers):
    """Entire space: the loss of a task that is given another is on the product along its chain (Ma et al. 2018, eq. 4).

    p_ctcvr = p_ctr p_cvr against the label "clicked and converted", over all impressions; p_cvr has no loss of
    its own. What the network predicts stays the conditional probability. Tasks of another kind keep their loss.
    """

    def __init__(
        self,
        width: int,
        layers: Sequence[int],
        prior: Tensor,
        options: LayerOptions,
        relations: Relations,
        of_branches: int = 0,
    ) -> None:
        super().__init__(width, layers, prior, options, of_branches, relations.columns)
        self.chains = [_chain(relations, task) for task in range(len(relations.given))]

    def objective(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The product's logit, log p - log(1 - p), from log p: exact however small p is."""
        log_p = F.logsigmoid(logits)
        of_logits, of_labels = list(logits.unbind(1)), list(labels.unbind(1))
        for task, chain in enumerate(self.chains):
            if len(chain) > 1:
                product = log_p[:, chain].sum(dim=1)
                of_logits[task] = product - log1mexp(product)
                before = torch.where((labels[:, chain[:-1]] == 0).any(dim=1), 0.0, 1.0)
                # Its own label is NaN where an ancestor's is not 1: 0 there if one is 0, unknown otherwise.
                of_labels[task] = torch.where(before == 0, 0.0, labels[:, task])
        return torch.stack(of_logits, dim=1), torch.stack(of_labels, dim=1)


class AITM(Towers):
    """Adaptive information transfer from each task to the next one (Xi et al. 2021, eq. 3-7).

    z_1 = x_1, z_t = sum_u softmax_u(<h2(u), h3(u)> / sqrt(k)) h1(u) over the two tokens u = x_t and g(z_s), s the
    task that t is given, else the one before it. Towers read z_t. The calibrator, factor * mean of
    sum_t max(p_t - p_s, 0), holds the later step's probability below the earlier one's.

    NOTE[DIFF] a task with `given` predicts a conditional probability, which may be larger than its parent's: the
    calibrator leaves it out, and its product along the chain is below its parent by construction. The paper's
    set-up is tasks without `given`, each labelled on every row.
    NOTE[DIFF] the calibrator is a mean over the rows, so that its weight does not depend on the batch size.
    """

    def __init__(
        self,
        width: int,
        layers: Sequence[int],
        prior: Tensor,
        options: LayerOptions,
        relations: Relations,
        calibrator: float,
        of_branches: int = 0,
    ) -> None:
        super().__init__(width, layers, prior, options, of_branches, relations.columns)
        tasks = range(1, len(relations.given))
        given = [relations.given[task] for task in tasks]
        self.sources = [
            task - 1 if parent is None else parent for task, parent in zip(tasks, given, strict=True)
        ]
        self.calibrator = calibrator
        self._later = [
            task
            for task, source in zip(tasks, self.sources, strict=True)
            if relations.given[task] is None
            and relations.given[source] is None
            and relations.binary[task]
            and relations.binary[source]
        ]
        self._earlier = [self.sources[task - 1] for task in self._later]
        self.information = nn.ModuleList(hidden_layers(1, [width, width], options) for _ in tasks)
        self.transfer = nn.ModuleList(InformationTransfer(width) for _ in tasks)

    def forward(self, x: Tensor, vectors: Tensor | None = None) -> Tensor:
        z = list(x.unbind(1))
        for task, source in enumerate(self.sources, start=1):
            information = self.information[task - 1](z[source].unsqueeze(1))
            z[task] = self.transfer[task - 1](torch.cat([z[task].unsqueeze(1), information], dim=1))
        return super().forward(torch.stack(z, dim=1), vectors)

    def auxiliary(self, logits: Tensor) -> Tensor | None:
        if not self._later or not self.calibrator:
            return None
        p = torch.sigmoid(logits)
        return self.calibrator * F.relu(p[:, self._later] - p[:, self._earlier]).sum(dim=1).mean()


class InformationTransfer(nn.Module):
    """Attention of a few tokens over themselves, each weighed by its own query and key (Xi et al. 2021, eq. 4-6).

    Shape: (B, tokens, width) -> (B, width)
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.value = Linear(width, width, bias=False)
        self.query = Linear(width, width, bias=False)
        self.key = Linear(width, width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        scores = (self.query(tokens) * self.key(tokens)).sum(dim=2) / math.sqrt(tokens.shape[2])
        weights = torch.softmax(scores, dim=1)
        transferred: Tensor = (
            weights.unsqueeze(1).to(tokens.dtype) @ self.value(tokens).to(tokens.dtype)
        ).squeeze(1)
        return transferred


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x < 0, exact at both ends (Maechler 2012).

    x is held below -1e-7: at p = 1 the logarithm has no value and no gradient.
    """
    x = x.clamp(max=-1e-7)
    near = x > -math.log(2)
    # Both branches are evaluated: each gets an argument at which its gradient is finite.
    return torch.where(
        near,
        torch.log(-torch.expm1(torch.where(near, x, -1.0))),
        torch.log1p(-torch.exp(torch.where(near, -1.0, x))),
    )


def _chain(relations: Relations, task: int) -> list[int]:
    """A binary task's ancestors, the first one first, and the task itself; only itself if it is not binary."""
    chain = [task]
    while relations.binary[task] and (parent := relations.given[chain[0]]) is not None:
        chain.insert(0, parent)
    return chain


Head = Callable[[int, Model, Tensor, Relations, int], Towers]

# (width of the trunk's vectors, options, prior, relations, length of the branch vectors) -> head
HEADS: dict[str, Head] = {
    "towers": lambda width, m, prior, relations, branches: Towers(
        width, m.tower_layers, prior, LayerOptions.of(m), branches, relations.columns
    ),
    "esmm": lambda width, m, prior, relations, branches: ESMM(
        width, m.tower_layers, prior, LayerOptions.of(m), relations, branches
    ),
    "aitm": lambda width, m, prior, relations, branches: AITM(
        width, m.tower_layers, prior, LayerOptions.of(m), relations, m.calibrator, branches
    ),
}
