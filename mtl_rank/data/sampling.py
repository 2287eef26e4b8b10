"""Negative down-sampling: an epoch of all positive rows of a task and a share of its negative ones."""

import numpy as np
import numpy.typing as npt

from mtl_rank.data.labels import Labels

Rows = npt.NDArray[np.int64]


class NegativeSampling:
    """Which rows of each run of consecutive rows an epoch trains on.

    How many negatives a run gives is fixed, so that every epoch has the same number of rows; which ones is drawn
    anew. A row without a label of the task is no negative.

    labels: (N, T), encoded. task: its column. keep: the share of its rows with label 0. run_rows: rows of a run.
    rows: of an epoch.
    """

    def __init__(self, labels: Labels, task: int, keep: float, run_rows: int) -> None:
        self.task = task
        self.keep = keep
        starts = range(0, len(labels), run_rows)
        negatives = [int(np.count_nonzero(labels[i : i + run_rows, task] == 0)) for i in starts]
        kept = np.floor(np.cumsum([0, *negatives]) * keep).astype(np.int64)
        self._quotas = np.diff(kept)
        self.rows = len(labels) - sum(negatives) + int(kept[-1])

    def choose(self, run: int, labels: Labels, generator: np.random.Generator) -> Rows:
        """The chosen rows of a run, in order. labels: (R, T), those of the run."""
        is_negative = labels[:, self.task] == 0
        negatives = np.flatnonzero(is_negative)
        chosen = generator.choice(negatives, self._quotas[run], replace=False, shuffle=False)
        return np.sort(np.concatenate([np.flatnonzero(~is_negative), chosen]))
