"""What comes of a page: clicks, purchases after clicks, seconds of dwelling, and how likely each was."""

from dataclasses import dataclass

import numpy as np

from mtl_rank.datasets.shop.month import DAY_MICROSECONDS, HOUR_MICROSECONDS
from mtl_rank.datasets.shop.pages import Pages
from mtl_rank.datasets.shop.world import Floats, Ints, World

_MOOD = 0.08
_DWELL_SPREAD = 0.5
_BUYERS_DWELL = 1.5
_EVENING = 0.3 * np.cos((np.arange(24) - 21) * np.pi / 12)


@dataclass(frozen=True)
class Responses:
    """One row per impression, and beside it the truth.

    Shape: (N,) each. `ctr`: probability of a click. `cvr`: of a purchase given a click. `dwell`: mean of
    dwell_seconds given a click.
    """

    clicked: Ints
    purchased: Ints
    dwell_seconds: Floats  # rounded to 0.1; NaN where not clicked
    ctr: Floats
    cvr: Floats
    dwell: Floats


@dataclass(frozen=True)
class _Match:
    """How user, item and moment go together. Shape: (N,) each."""

    taste: Floats
    wanted: Floats  # 1 where the item is of the kind they look for today
    gap: Floats  # log of the price over the one they are used to
    sensitivity: Floats
    bargain: Floats  # discount, weighted by sensitivity
    quality: Floats
    trend: Floats
    evening: Floats
    mood: Floats  # of the visitor on this page; nothing tells of it


def respond(world: World, day: int, pages: Pages, rng: np.random.Generator) -> Responses:
    """Draw what the visitors of one day do."""
    users, items, user, item = world.users, world.items, pages.user, pages.item
    rows = len(user)
    match = _match(world, day, pages, rng)
    shown = items.appeal[item] - 0.7 * np.log(pages.position)
    ctr = _sigmoid(shown + users.engagement[user] + _liking(match))
    cvr = _sigmoid(users.spending[user] + _willingness(match))
    clicked = rng.random(rows) < ctr
    purchased = clicked & (rng.random(rows) < cvr)

    location = 2.9 + 0.25 * match.taste + 0.2 * match.quality + 0.3 * match.wanted + users.patience[user]
    seconds = np.exp(location + _DWELL_SPREAD * rng.standard_normal(rows))
    seconds = np.round(seconds * np.where(purchased, _BUYERS_DWELL, 1.0), 1)
    return Responses(
        clicked=clicked.astype(np.int64),
        purchased=purchased.astype(np.int64),
        dwell_seconds=np.where(clicked, seconds, np.nan),
        ctr=ctr,
        cvr=cvr,
        dwell=np.exp(location + _DWELL_SPREAD**2 / 2) * (1 + (_BUYERS_DWELL - 1) * cvr),
    )


def asked_level(world: World, item: Ints, day: int) -> Floats:
    """Price asked on that day over the usual price of the item's category."""
    items = world.items
    level: Floats = np.round(items.list_level[item] * (1 - items.discount[item, day // 7]), 3)
    return level


def _liking(match: _Match) -> Floats:
    """Log-odds of a click, apart from who looks and how the item is shown."""
    return (
        -1.95
        + 0.75 * match.taste
        + 0.45 * match.wanted
        + 0.15 * match.quality
        + match.trend
        - 0.9 * np.abs(match.gap)
        + 2.2 * match.bargain
        + match.evening
        + match.mood
    )


def _willingness(match: _Match) -> Floats:
    """Log-odds of a purchase given a click, apart from who buys."""
    return (
        -3.35
        + 0.45 * match.taste
        + 0.25 * match.wanted
        + 0.8 * match.quality
        - 0.8 * np.abs(match.gap)
        - 0.9 * match.sensitivity * np.maximum(match.gap, 0.0)
        + 4.0 * match.bargain
        + 1.5 * match.evening
        + match.mood
    )


def _match(world: World, day: int, pages: Pages, rng: np.random.Generator) -> _Match:
    users, items, user, item = world.users, world.items, pages.user, pages.item
    elapsed = pages.time / DAY_MICROSECONDS - day
    visits = int(pages.page[-1]) + 1
    return _Match(
        taste=users.taste[user, items.category[item]],
        wanted=(users.quest[user, day] == items.subcategory[item]).astype(np.float64),
        gap=np.log(asked_level(world, item, day)) - users.price_level[user],
        sensitivity=users.sensitivity[user],
        bargain=items.discount[item, day // 7] * users.sensitivity[user],
        quality=items.quality[item],
        trend=items.trend[item, day] * (1 - elapsed) + items.trend[item, day + 1] * elapsed,
        evening=_EVENING[pages.time // HOUR_MICROSECONDS % 24],
        mood=_MOOD * rng.standard_normal(visits)[pages.page],
    )


def _sigmoid(logit: Floats) -> Floats:
    return 1 / (1 + np.exp(-logit))
