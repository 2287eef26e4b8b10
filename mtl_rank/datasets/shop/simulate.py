"""The demo shop on disk: impressions with labels, the feature sources, candidates and the truth."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from mtl_rank.datasets.shop.sessions import (
    HOUR_MICROSECONDS,
    Impressions,
    rows_per_day,
    simulate_day,
)
from mtl_rank.datasets.shop.sources import Sources, closing_time
from mtl_rank.datasets.shop.tables import TableFiles, month_time, table
from mtl_rank.datasets.shop.world import DAYS, Ints, World, build_world
from mtl_rank.errors import ConfigError, DataError

MIN_ROWS = 1_000
_CANDIDATE_USERS, _CANDIDATES_PER_USER, _CANDIDATE_HOUR = 200, 20, 9


@dataclass(frozen=True)
class ShopSummary:
    """What `simulate_shop` wrote. `rates`: `ctr` clicks per impression, `cvr` purchases per click."""

    rows: int
    users: int
    items: int
    rates: dict[str, float]
    files: tuple[Path, ...]
    seconds: float


def simulate_shop(
    out: Path, rows: int = 50_000, seed: int = 7, progress: Callable[[int, int], None] | None = None
) -> ShopSummary:
    """Simulate a month of a shop and write its tables as parquet files into the folder `out`.

    Exactly `rows` impressions over 2026-03-01 .. 2026-03-30 UTC. The same rows and seed give the same bytes.
    Files appear in `out` only when all are complete; files of the same names are replaced, others are left.

    progress: called with (days done, days in all) after each day.

    Raises:
        ConfigError: `rows` below 1000 or a negative seed.
        DataError: `out` is a file.
    """
    if rows < MIN_ROWS:
        raise ConfigError(f"{rows} rows are too few for a month of a shop: ask for {MIN_ROWS} or more")
    if seed < 0:
        raise ConfigError(f"the seed {seed} is negative: give 0 or more")
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file: name a folder to write the shop to")
    began = time.perf_counter()
    users, items = _shop_size(rows)
    world = build_world(users, items, seed)
    clicks = purchases = 0
    with _published(out) as folder, TableFiles(folder) as files:
        for day, impressions in _run(world, rows, seed, files):
            clicks += int(impressions.clicked.sum())
            purchases += int(impressions.purchased.sum())
            if progress:
                progress(day + 1, DAYS)
        files.append("candidates", _candidates(world, seed))
        names = sorted(path.name for path in files.paths.values())
    return ShopSummary(
        rows=rows,
        users=users,
        items=items,
        rates={"ctr": clicks / rows, "cvr": purchases / max(clicks, 1)},
        files=tuple(out / name for name in names),
        seconds=time.perf_counter() - began,
    )


def _shop_size(rows: int) -> tuple[int, int]:
    """Users grow with the impressions, items with their square root, as in a shop that finds customers."""
    return max(50, rows // 60), round(3_000 * (rows / 500_000) ** 0.5)


def _run(world: World, rows: int, seed: int, files: TableFiles) -> Iterator[tuple[int, Impressions]]:
    sources = Sources(world)
    impression = request = 1
    for day, count in enumerate(rows_per_day(rows)):
        for name, piece in sources.at_midnight(day):
            files.append(name, piece)
        impressions = simulate_day(world, day, int(count), seed)
        ids = impression + np.arange(count)
        files.append("impressions", _impression_rows(world, impressions, ids, request))
        files.append(
            "truth",
            table(
                "truth",
                impression_id=ids,
                ctr=np.round(impressions.ctr, 5),
                cvr=np.round(impressions.cvr, 5),
                dwell=np.round(impressions.dwell, 2),
            ),
        )
        for name, piece in sources.after(impressions):
            files.append(name, piece)
        impression += int(count)
        request += int(impressions.page[-1]) + 1
        yield day, impressions


def _impression_rows(world: World, day: Impressions, ids: Ints, first_request: int) -> pa.Table:
    return table(
        "impressions",
        impression_id=ids,
        request_id=day.page + first_request,
        user_id=day.user + 1,
        item_id=day.item + 1,
        category_id=world.items.category[day.item],
        event_timestamp=month_time(day.time),
        position=day.position,
        hour=day.hour % 24,
        clicked=day.clicked,
        purchased=day.purchased,
        dwell_seconds=day.dwell_seconds,
    )


def _candidates(world: World, seed: int) -> pa.Table:
    """Pairs to score on the morning after the last day: some users, some items for each."""
    rng = np.random.default_rng([seed, 2])
    users, items = len(world.users.joined), len(world.items.launched)
    chosen = np.sort(rng.choice(users, min(_CANDIDATE_USERS, users), replace=False))
    each = min(_CANDIDATES_PER_USER, items)
    item = np.concatenate([np.sort(rng.choice(items, each, replace=False)) for _ in chosen])
    morning = closing_time() + _CANDIDATE_HOUR * HOUR_MICROSECONDS
    return table(
        "candidates",
        user_id=np.repeat(chosen, each) + 1,
        item_id=item + 1,
        category_id=world.items.category[item],
        event_timestamp=month_time(np.full(len(item), morning)),
        hour=np.full(len(item), _CANDIDATE_HOUR),
    )


@contextmanager
def _published(out: Path) -> Iterator[Path]:
    """A folder beside `out` whose files move into `out` when the block ends well, and vanish when not."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = out.parent / f".{out.name}.{os.getpid()}.partial"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
        out.mkdir(exist_ok=True)
        for path in sorted(folder.iterdir()):
            path.replace(out / path.name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
