"""What a warehouse knows at the end of each hour, kept day by day from the past alone."""

from dataclasses import dataclass

import numpy as np

from mtl_rank.datasets.shop.month import DAYS
from mtl_rank.datasets.shop.world import Ints

_HOURS = 24 * DAYS + 1


@dataclass(frozen=True)
class Totals:
    """One row per key and hour in which something happened, after that hour.

    Shape: key, hour (G,); lifetime (G, M); windows[h] (G, M), the sums over the last h hours.
    """

    key: Ints
    hour: Ints
    lifetime: Ints
    windows: dict[int, Ints]


class RunningTotals:
    """Sums of measures per key since the beginning and over windows of so many hours.

    Memory is one row per key, and one per key and hour of the longest window.
    """

    def __init__(self, keys: int, measures: int, windows: tuple[int, ...]) -> None:
        self.windows = windows
        self.lifetime = np.zeros((keys, measures), np.int64)
        self.recent_code = np.empty(0, np.int64)
        self.recent = np.empty((0, measures), np.int64)

    def update(self, key: Ints, hour: Ints, measures: Ints) -> Totals:
        """Add one day of events, later than all before.

        Shape: key, hour (N,), measures (N, M)
        """
        code = key * _HOURS + hour
        order = np.argsort(code, kind="stable")
        starts = _run_starts(code[order])
        code = code[order][starts]
        sums = np.add.reduceat(measures[order], starts, axis=0)
        key, hour = code // _HOURS, code % _HOURS

        lifetime = self.lifetime[key] + _running_within(key, sums)
        last = np.append(_run_starts(key)[1:], len(key)) - 1
        self.lifetime[key[last]] = lifetime[last]
        return Totals(key, hour, lifetime, self._windowed(code, sums))

    def _windowed(self, code: Ints, sums: Ints) -> dict[int, Ints]:
        codes = np.concatenate([self.recent_code, code])
        order = np.argsort(codes, kind="stable")
        codes, recent = codes[order], np.concatenate([self.recent, sums])[order]
        running = np.concatenate([np.zeros((1, recent.shape[1]), np.int64), np.cumsum(recent, axis=0)])
        upto = running[np.searchsorted(codes, code, side="right")]
        before_key = code // _HOURS * _HOURS - 1
        windows = {
            hours: upto - running[np.searchsorted(codes, np.maximum(code - hours, before_key), side="right")]
            for hours in self.windows
        }
        if self.windows:
            fresh = codes % _HOURS > (code % _HOURS).max() - max(self.windows)
            self.recent_code, self.recent = codes[fresh], recent[fresh]
        return windows


@dataclass(frozen=True)
class Histories:
    """Shape: key, hour (G,); offsets (G + 1,) into values, each key's last events, oldest first."""

    key: Ints
    hour: Ints
    offsets: Ints
    values: Ints


class RunningHistory:
    """The last `length` values of each key, in the order they came."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.key = np.empty(0, np.int64)
        self.value = np.empty(0, np.int64)

    def update(self, key: Ints, hour: Ints, value: Ints) -> Histories:
        """Add one day of events in time order, later than all before. One row per key and hour with events.

        Shape: (N,) each
        """
        keys = np.concatenate([self.key, key])
        values = np.concatenate([self.value, value])
        hours = np.concatenate([np.full(len(self.key), -1), hour])
        order = np.argsort(keys, kind="stable")
        keys, values, hours = keys[order], values[order], hours[order]

        ends = np.append(_run_starts(keys * _HOURS + hours)[1:], len(keys))[: len(keys)]
        ends = ends[hours[ends - 1] >= 0]
        begins = np.maximum(np.searchsorted(keys, keys[ends - 1]), ends - self.length)
        kept = np.searchsorted(keys, keys, side="right") - np.arange(len(keys)) <= self.length
        self.key, self.value = keys[kept], values[kept]

        lengths = ends - begins
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        at = np.repeat(begins - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Histories(keys[ends - 1], hours[ends - 1], offsets, values[at])


def _run_starts(codes: Ints) -> Ints:
    """Where each run of equal values begins."""
    return np.flatnonzero(np.concatenate([[True], codes[1:] != codes[:-1]])[: len(codes)])


def _running_within(key: Ints, sums: Ints) -> Ints:
    """Running sums that restart with each key. Shape: sorted (G,), (G, M) -> (G, M)"""
    running: Ints = np.cumsum(sums, axis=0)
    starts = _run_starts(key)
    before = running[starts] - sums[starts]
    return running - np.repeat(before, np.diff(np.append(starts, len(key))), axis=0)
