"""The tables a warehouse would hold about the shop, each row stamped with the moment it became known.

Profiles are snapshots taken at midnight. Statistics are written at the end of an hour: a row stamped 14:00
has seen everything before 14:00 and nothing after.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from mtl_rank.datasets.shop.month import DAY_MICROSECONDS, HOUR_MICROSECONDS, timestamps
from mtl_rank.datasets.shop.pages import Pages
from mtl_rank.datasets.shop.responses import Responses, asked_level
from mtl_rank.datasets.shop.running import Histories, RunningHistory, RunningTotals, Totals
from mtl_rank.datasets.shop.tables import table
from mtl_rank.datasets.shop.world import CATEGORIES, Floats, Ints, World

HISTORY_LENGTH = 50
_DAY, _WEEK = 24, 24 * 7


class Sources:
    """The feature tables, written day by day as the shop runs."""

    def __init__(self, world: World) -> None:
        users, items = len(world.users.joined), len(world.items.launched)
        self.world = world
        self.user_totals = RunningTotals(users, 5, (_WEEK,))
        self.item_totals = RunningTotals(items, 4, (_DAY, _WEEK))
        self.category_totals = RunningTotals(users * CATEGORIES, 3, (_WEEK,))
        self.history = RunningHistory(HISTORY_LENGTH)

    def at_midnight(self, day: int) -> Iterator[tuple[str, pa.Table]]:
        """What is known as the day begins: new users, new items, new prices."""
        newcomers = np.flatnonzero(self.world.users.joined == day)
        if len(newcomers):
            yield "user_profile", _user_profile(self.world, newcomers, day)
            yield "user_category", _stated_interest(self.world, newcomers, day)
        items = self.world.items
        priced = items.launched <= day if day % 7 == 0 else items.launched == day
        if priced.any():
            yield "item_profile", _item_profile(self.world, np.flatnonzero(priced), day)

    def after(self, day: int, pages: Pages, responses: Responses) -> Iterator[tuple[str, pa.Table]]:
        """What each hour of the day adds to the statistics."""
        user, item = pages.user, pages.item
        hour = pages.time // HOUR_MICROSECONDS
        clicked, purchased = responses.clicked, responses.purchased
        # Whole tenths and thousandths add up exactly, in any order.
        tenths = np.rint(np.nan_to_num(responses.dwell_seconds) * 10).astype(np.int64)
        thousandths = np.rint(asked_level(self.world, item, day) * 1000).astype(np.int64) * clicked
        counts = np.stack([np.ones_like(user), clicked, purchased, tenths, thousandths], axis=1)
        pair = user * CATEGORIES + self.world.items.category[item]
        seen = clicked == 1

        yield "user_stats", _user_stats(self.user_totals.update(user, hour, counts))
        yield "item_stats", _item_stats(self.item_totals.update(item, hour, counts[:, :4]))
        yield "user_category", self._user_category(self.category_totals.update(pair, hour, counts[:, :3]))
        yield "user_history", _user_history(self.history.update(user[seen], hour[seen], item[seen] + 1))

    def _user_category(self, totals: Totals) -> pa.Table:
        user, category = totals.key // CATEGORIES, totals.key % CATEGORIES
        return _category_rows(
            user,
            category,
            known_at=_hour_end(totals.hour),
            stated=self.world.users.interest[user, category],
            lifetime=totals.lifetime,
            week=totals.windows[_WEEK],
        )


def _user_profile(world: World, user: Ints, day: int) -> pa.Table:
    users = world.users
    midnight = _midnight(day, len(user))
    return table(
        "user_profile",
        user_id=user + 1,
        event_timestamp=midnight,
        created=midnight,
        age_band=users.age_band[user],
        city_tier=users.city_tier[user],
        device=users.device[user],
        income_band=users.income_band[user],
        price_preference=np.round(users.price_preference[user], 2),
        loyalty_tier=users.loyalty_tier[user],
        coupon_use=users.coupon_use[user],
    )


def _item_profile(world: World, item: Ints, day: int) -> pa.Table:
    items = world.items
    midnight = _midnight(day, len(item))
    discount = items.discount[item, day // 7]
    tags = pa.FixedSizeListArray.from_arrays(pa.array(items.tags[item].ravel()), items.tags.shape[1])
    return table(
        "item_profile",
        item_id=item + 1,
        event_timestamp=midnight,
        created=midnight,
        subcategory=items.subcategory[item],
        brand=items.brand[item],
        tags=tags.cast(pa.list_(pa.int64())),
        price=np.round(items.list_price[item] * (1 - discount), 2),
        price_level=asked_level(world, item, day),
        discount=discount,
        rating=np.round(items.rating[item], 1),
        reviews=items.reviews[item],
    )


def _stated_interest(world: World, user: Ints, day: int) -> pa.Table:
    """What each new user ticked at sign-up, before any visit."""
    pairs = len(user) * CATEGORIES
    nothing = np.zeros((pairs, 3), np.int64)
    return _category_rows(
        np.repeat(user, CATEGORIES),
        np.tile(np.arange(CATEGORIES), len(user)),
        known_at=_midnight(day, pairs),
        stated=world.users.interest[user].ravel(),
        lifetime=nothing,
        week=nothing,
    )


def _category_rows(
    user: Ints, category: Ints, known_at: pa.Array, stated: Ints, lifetime: Ints, week: Ints
) -> pa.Table:
    impressions, clicks, purchases = lifetime.T
    return table(
        "user_category",
        user_id=user + 1,
        category_id=category,
        event_timestamp=known_at,
        stated_interest=stated,
        impressions=impressions,
        clicks=clicks,
        purchases=purchases,
        clicks_7d=week[:, 1],
        click_rate=_rate(clicks, impressions, prior=0.1, weight=8),
    )


def _user_stats(totals: Totals) -> pa.Table:
    impressions, clicks, purchases, tenths, thousandths = totals.lifetime.T
    return table(
        "user_stats",
        user_id=totals.key + 1,
        event_timestamp=_hour_end(totals.hour),
        impressions=impressions,
        clicks=clicks,
        purchases=purchases,
        clicks_7d=totals.windows[_WEEK][:, 1],
        click_rate=_rate(clicks, impressions, prior=0.1, weight=20),
        purchase_rate=_rate(purchases, clicks, prior=0.1, weight=10),
        mean_dwell=_rate(tenths / 10, clicks, prior=25.0, weight=3),
        usual_price_level=_rate(thousandths / 1000, clicks, prior=1.0, weight=2),
    )


def _item_stats(totals: Totals) -> pa.Table:
    impressions, clicks, purchases, tenths = totals.lifetime.T
    day, week = totals.windows[_DAY], totals.windows[_WEEK]
    return table(
        "item_stats",
        item_id=totals.key + 1,
        event_timestamp=_hour_end(totals.hour),
        impressions_1d=day[:, 0],
        clicks_1d=day[:, 1],
        impressions_7d=week[:, 0],
        clicks_7d=week[:, 1],
        click_rate_7d=_rate(week[:, 1], week[:, 0], prior=0.1, weight=20),
        click_rate=_rate(clicks, impressions, prior=0.1, weight=20),
        purchase_rate=_rate(purchases, clicks, prior=0.1, weight=10),
        mean_dwell=_rate(tenths / 10, clicks, prior=25.0, weight=3),
    )


def _user_history(past: Histories) -> pa.Table:
    offsets = pa.array(past.offsets, pa.int32())
    return table(
        "user_history",
        user_id=past.key + 1,
        event_timestamp=_hour_end(past.hour),
        clicked_items=pa.ListArray.from_arrays(offsets, pa.array(past.values, pa.int64())),
    )


def _rate(part: Ints | Floats, whole: Ints, prior: float, weight: float) -> Floats:
    """A mean drawn towards the prior, as if `weight` cases of it had been seen before."""
    rate: Floats = (part + prior * weight) / (whole + weight)
    return rate.round(4)


def _midnight(day: int, rows: int) -> pa.Array:
    return timestamps(np.full(rows, day * DAY_MICROSECONDS))


def _hour_end(hour: Ints) -> pa.Array:
    return timestamps((hour + 1) * HOUR_MICROSECONDS)
