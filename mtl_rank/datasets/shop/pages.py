"""Who visits the shop on a day, when, and what their pages show."""

from dataclasses import dataclass

import numpy as np

from mtl_rank.datasets.shop.month import DAY_MICROSECONDS, HOUR_MICROSECONDS
from mtl_rank.datasets.shop.world import Floats, Ints, World, cumulative_softmax, pick

PAGE_SIZES = (5, 12)
_PEAK_HOURS = (9, 20)  # of the two chronotypes
_VISITS = np.stack([1.5 * np.cos((np.arange(24) - peak) * np.pi / 12) for peak in _PEAK_HOURS])


@dataclass(frozen=True)
class Pages:
    """What was shown, one row per item on a page, in time order.

    Shape: (N,) each. `page` counts from 0 within the day.
    """

    user: Ints
    item: Ints
    page: Ints
    position: Ints  # from 1
    time: Ints  # microseconds since the month began


def show_pages(world: World, day: int, rows: int, rng: np.random.Generator) -> Pages:
    """Pages of one day with exactly so many rows."""
    sizes = _page_sizes(rows, rng)
    visitor, start = _visits(world, day, len(sizes), rng)
    page = np.repeat(np.arange(len(sizes)), sizes)
    user = visitor[page]
    return Pages(
        user=user,
        item=_fill_pages(world, day, user, page, rng),
        page=page,
        position=np.arange(rows) - np.repeat(np.cumsum(sizes) - sizes, sizes) + 1,
        time=start[page],
    )


def _page_sizes(rows: int, rng: np.random.Generator) -> Ints:
    smallest, largest = PAGE_SIZES
    sizes = rng.integers(smallest, largest + 1, rows // smallest + 1)
    ends = np.cumsum(sizes)
    pages = int(np.searchsorted(ends, rows)) + 1
    sizes = sizes[:pages]
    sizes[-1] -= ends[pages - 1] - rows
    return sizes


def _visits(world: World, day: int, pages: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Who opens each page and at which microsecond of the month, in time order."""
    users = world.users
    weight = np.cumsum(users.activity * (users.joined <= day))
    visitor = np.searchsorted(weight, rng.random(pages) * weight[-1], side="right")
    hour = pick(cumulative_softmax(_VISITS)[users.chronotype[visitor]], rng.random(pages))
    start = day * DAY_MICROSECONDS + hour * HOUR_MICROSECONDS
    start += rng.integers(0, HOUR_MICROSECONDS // 1000, pages) * 1000
    order = np.argsort(start, kind="stable")
    return visitor[order], start[order]


def _fill_pages(world: World, day: int, user: Ints, page: Ints, rng: np.random.Generator) -> Ints:
    """What a plausible earlier recommender shows: bestsellers, the user's categories, what they look for.

    No item stands twice on a page.
    """
    shelf = _Shelf(world, day)
    leaning = cumulative_softmax(0.6 * world.users.taste)
    item = np.full(len(user), -1)
    empty = np.arange(len(user))
    while len(empty):
        who = user[empty]
        category = pick(leaning[who], rng.random(len(who)))
        wish = world.users.quest[who, day]
        kind = rng.random(len(who))
        first = np.select([kind < 0.3, kind < 0.85], [0, category * 4], wish)
        last = np.select([kind < 0.3, kind < 0.85], [shelf.subcategories - 1, category * 4 + 3], wish)
        item[empty] = shelf.draw(first, last, rng.random(len(who)))
        order = np.lexsort((np.arange(len(item)), item, page))
        same = (np.diff(page[order]) == 0) & (np.diff(item[order]) == 0)
        empty = np.sort(order[1:][same])
    return item


class _Shelf:
    """Items on sale today, drawn in proportion to how often the shop shows them."""

    def __init__(self, world: World, day: int) -> None:
        items = world.items
        weight = items.exposure * np.exp(2.0 * items.trend[:, day]) * (items.launched <= day)
        self.order = np.argsort(items.subcategory, kind="stable")
        self.running = np.concatenate([[0.0], np.cumsum(weight[self.order])])
        self.subcategories = int(items.subcategory.max()) + 1
        self.edges = np.searchsorted(items.subcategory[self.order], np.arange(self.subcategories + 1))

    def draw(self, first: Ints, last: Ints, at: Floats) -> Ints:
        """One item of the subcategories `first` .. `last` each; of the whole shop where they are empty.

        Shape: (N,), (N,), (N,) in [0, 1) -> (N,)
        """
        low = self.running[self.edges[np.minimum(first, self.subcategories)]]
        high = self.running[self.edges[np.minimum(last + 1, self.subcategories)]]
        bare = high - low <= 0
        low, high = np.where(bare, 0.0, low), np.where(bare, self.running[-1], high)
        place = np.searchsorted(self.running, low + at * (high - low), side="right") - 1
        drawn: Ints = self.order[np.minimum(place, len(self.order) - 1)]
        return drawn
