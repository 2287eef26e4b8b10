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

from mtl_rank.datasets.shop.month import (
    DAY_MICROSECONDS,
    DAYS,
    HOUR_MICROSECONDS,
    rows_per_day,
    timestamps,
)
from mtl_rank.datasets.shop.pages import Pages, show_pages
from mtl_rank.datasets.shop.responses import Responses, respond
from mtl_rank.datasets.shop.sources import Sources
from mtl_rank.datasets.shop.tables import TableFiles, table
from mtl_rank.datasets.shop.world import Ints, World, build_world
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
        for day, responses in enumerate(_run(world, rows, seed, files)):
            clicks += int(responses.clicked.sum())
            purchases += int(responses.purchased.sum())
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
    return max(50, rows // 100), round(2_500 * (rows / 500_000) ** 0.5)


def _run(world: World, rows: int, seed: int, files: TableFiles) -> Iterator[Responses]:
    """Write one day after the other. Each day is a draw of its own, given the world."""
    sources = Sources(world)
    impression = request = 1
    for day, count in enumerate(rows_per_day(rows).tolist()):
        for name, piece in sources.at_midnight(day):
            files.append(name, piece)
        rng = np.random.default_rng([seed, 1, day])
        pages = show_pages(world, day, count, rng)
        responses = respond(world, day, pages, rng)
        ids = np.arange(impression, impression + count)
        files.append("impressions", _impression_rows(world, ids, request, pages, responses))
        files.append("truth", _truth_rows(ids, responses))
        for name, piece in sources.after(day, pages, responses):
            files.append(name, piece)
        impression += count
        request += int(pages.page[-1]) + 1
        yield responses


def _impression_rows(
    world: World, ids: Ints, first_request: int, pages: Pages, responses: Responses
) -> pa.Table:
    return table(
        "impressions",
        impression_id=ids,
        request_id=pages.page + first_request,
        user_id=pages.user + 1,
        item_id=pages.item + 1,
        category_id=world.items.category[pages.item],
        event_timestamp=timestamps(pages.time),
        position=pages.position,
        hour=pages.time // HOUR_MICROSECONDS % 24,
        clicked=responses.clicked,
        purchased=responses.purchased,
        dwell_seconds=responses.dwell_seconds,
    )


def _truth_rows(ids: Ints, responses: Responses) -> pa.Table:
    return table(
        "truth",
        impression_id=ids,
        ctr=np.round(responses.ctr, 5),
        cvr=np.round(responses.cvr, 5),
        dwell=np.round(responses.dwell, 2),
    )


def _candidates(world: World, seed: int) -> pa.Table:
    """Pairs to score on the morning after the last day: some users, some items for each."""
    rng = np.random.default_rng([seed, 2])
    users, items = len(world.users.joined), len(world.items.launched)
    chosen = np.sort(rng.choice(users, min(_CANDIDATE_USERS, users), replace=False))
    each = min(_CANDIDATES_PER_USER, items)
    item = np.concatenate([np.sort(rng.choice(items, each, replace=False)) for _ in chosen])
    morning = DAYS * DAY_MICROSECONDS + _CANDIDATE_HOUR * HOUR_MICROSECONDS
    return table(
        "candidates",
        user_id=np.repeat(chosen, each) + 1,
        item_id=item + 1,
        category_id=world.items.category[item],
        event_timestamp=timestamps(np.full(len(item), morning)),
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
