"""One day in the shop: who visits when, what the pages show, and what comes of it."""

from dataclasses import dataclass

import numpy as np

from mtl_rank.datasets.shop.world import DAYS, Floats, Ints, World, cumulative_softmax, pick

HOUR_MICROSECONDS = 3_600_000_000
DAY_MICROSECONDS = 24 * HOUR_MICROSECONDS
PAGE_SIZES = (5, 12)

_HOUR = np.arange(24)
_VISITS = np.stack([1.5 * np.cos((_HOUR - peak) * np.pi / 12) for peak in (9, 20)])
_MOMENT = 0.25 * np.cos((_HOUR - 21) * np.pi / 12)


@dataclass(frozen=True)
class Impressions:
    """Impressions in time order, one row each.

    Shape: (N,) each. `page` counts from 0 within the day; `ctr`, `cvr` and `dwell` are the truth: probability
    of a click, of a purchase given a click, and the mean of dwell_seconds given a click.
    """

    user: Ints
    item: Ints
    page: Ints
    position: Ints  # from 1
    time: Ints  # microseconds since the simulated month began
    level: Floats  # price asked over the category's usual price
    clicked: Ints
    purchased: Ints
    dwell_seconds: Floats  # rounded to 0.1; NaN where not clicked
    ctr: Floats
    cvr: Floats
    dwell: Floats

    @property
    def hour(self) -> Ints:
        """Hours since the simulated month began."""
        return self.time // HOUR_MICROSECONDS


def simulate_day(world: World, day: int, rows: int, seed: int) -> Impressions:
    """Exactly `rows` impressions of one day. Days are independent draws given the world."""
    rng = np.random.default_rng([seed, 1, day])
    sizes = _page_sizes(rows, rng)
    visitor, start = _visits(world, day, len(sizes), rng)
    page = np.repeat(np.arange(len(sizes)), sizes)
    position = np.arange(rows) - np.repeat(np.cumsum(sizes) - sizes, sizes) + 1
    user = visitor[page]
    item = _fill_pages(world, day, user, page, rng)
    mood = 0.15 * rng.standard_normal(len(sizes))[page]
    return _respond(world, day, user, item, page, position, start[page], mood, rng)


def asked_level(world: World, item: Ints, day: int) -> Floats:
    """Price asked on that day over the usual price of the item's category."""
    items = world.items
    level: Floats = np.round(items.list_level[item] * (1 - items.discount[item, day // 7]), 3)
    return level


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
        weight = items.exposure * np.exp(0.9 * items.trend[:, day]) * (items.launched <= day)
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


def _respond(
    world: World,
    day: int,
    user: Ints,
    item: Ints,
    page: Ints,
    position: Ints,
    time: Ints,
    mood: Floats,
    rng: np.random.Generator,
) -> Impressions:
    users, items = world.users, world.items
    taste = users.taste[user, items.category[item]]
    wanted = users.quest[user, day] == items.subcategory[item]
    level = asked_level(world, item, day)
    gap = np.log(level) - users.price_level[user]
    bargain = items.discount[item, day // 7] * users.sensitivity[user]
    hour = time // HOUR_MICROSECONDS % 24
    elapsed = time / DAY_MICROSECONDS - day
    trend = items.trend[item, day] * (1 - elapsed) + items.trend[item, day + 1] * elapsed
    quality = items.quality[item]

    click = (
        -2.0
        + 0.75 * taste
        + 1.0 * wanted
        + items.appeal[item]
        + 0.15 * quality
        + trend
        - 0.7 * gap**2
        + 1.0 * bargain
        - 0.45 * np.log(position)
        + _MOMENT[hour]
        + users.engagement[user]
        + mood
    )
    buy = (
        -3.2
        + 0.4 * taste
        + 0.8 * wanted
        + 0.55 * quality
        - 0.8 * gap**2
        - 0.9 * users.sensitivity[user] * np.maximum(gap, 0.0)
        + 2.5 * bargain
        + 1.2 * _MOMENT[hour]
        + users.spending[user]
        + mood
    )
    ctr, cvr = _sigmoid(click), _sigmoid(buy)
    clicked = rng.random(len(user)) < ctr
    purchased = clicked & (rng.random(len(user)) < cvr)

    spread, bought_longer = 0.5, 1.5
    location = 2.9 + 0.25 * taste + 0.2 * quality + 0.3 * wanted + users.patience[user]
    seconds = np.exp(location + spread * rng.standard_normal(len(user)))
    seconds = np.round(seconds * np.where(purchased, bought_longer, 1.0), 1)
    return Impressions(
        user=user,
        item=item,
        page=page,
        position=position,
        time=time,
        level=level,
        clicked=clicked.astype(np.int64),
        purchased=purchased.astype(np.int64),
        dwell_seconds=np.where(clicked, seconds, np.nan),
        ctr=ctr,
        cvr=cvr,
        dwell=np.exp(location + spread**2 / 2) * (1 + (bought_longer - 1) * cvr),
    )


def _sigmoid(logit: Floats) -> Floats:
    return 1 / (1 + np.exp(-logit))


def rows_per_day(rows: int) -> Ints:
    """How the rows fall on the days: weekends a sixth busier, every day at least one, exact in total."""
    weekday = (np.arange(DAYS) + 6) % 7  # the month begins on a Sunday
    share = np.where(weekday >= 5, 7.0, 6.0)
    ends = np.round(np.cumsum(share) / share.sum() * rows).astype(np.int64)
    counts: Ints = np.diff(ends, prepend=0)
    return counts
