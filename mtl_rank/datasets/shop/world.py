"""The shop before anybody looks at it: who its customers are, what it sells, and what each would like.

Everything here is hidden from a model except what `sources.py` writes into the profile tables. Effects are in
log-odds, so a standard deviation of 0.3 moves a click rate of 10 % by about a quarter.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtl_rank.datasets.shop.month import DAYS, WEEKS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CATEGORIES = 20
SUBCATEGORIES = 4 * CATEGORIES
BRANDS = 60
TAGS = 30
TAGS_PER_ITEM = 3
CHRONOTYPES = 2


@dataclass(frozen=True)
class Users:
    """Shape: (U,) each unless said otherwise. The first block is hidden, the second is the profile."""

    taste: Floats  # (U, CATEGORIES), about standard normal
    price_level: Floats  # log of the price they are used to, relative to the category's usual price
    sensitivity: Floats  # 0 and above: how much a higher price or a discount matters, mean 1
    engagement: Floats  # click log-odds
    spending: Floats  # purchase log-odds
    patience: Floats  # log of dwell time
    activity: Floats  # relative number of visits
    chronotype: Ints  # morning or evening
    quest: Ints  # (U, DAYS) the subcategory they are looking for on each day

    joined: Ints  # day
    age_band: Ints
    city_tier: Ints
    device: Ints
    income_band: Ints
    price_preference: Floats  # stated at sign-up, 1 = usual
    loyalty_tier: Ints
    coupon_use: Ints
    interest: Ints  # (U, CATEGORIES) stated at sign-up, 0 none .. 10 strong


@dataclass(frozen=True)
class Items:
    """Shape: (I,) each unless said otherwise. The first block is hidden, the second is the profile."""

    quality: Floats  # standard normal; raises purchases more than clicks
    appeal: Floats  # click log-odds of picture, title, brand and tags
    trend: Floats  # (I, DAYS + 1) click log-odds at each midnight, linear in between
    exposure: Floats  # how often the shop shows it

    launched: Ints  # day
    subcategory: Ints
    category: Ints
    brand: Ints
    tags: Ints  # (I, TAGS_PER_ITEM)
    list_price: Floats  # money
    list_level: Floats  # list price over the category's usual price
    discount: Floats  # (I, WEEKS) 0, 0.1, 0.2 or 0.3
    rating: Floats  # 1.0 .. 5.0
    reviews: Ints


@dataclass(frozen=True)
class World:
    users: Users
    items: Items


def build_world(users: int, items: int, seed: int) -> World:
    """Draw a shop with so many users and items. The same arguments give the same shop."""
    rng = np.random.default_rng([seed, 0])
    return World(_draw_users(users, rng), _draw_items(items, rng))


def pick(cumulative: Floats, at: Floats) -> Ints:
    """The index each draw falls on.

    Shape: cumulative (N, K) rising to 1 along each row, at (N,) in [0, 1) -> (N,) in 0 .. K-1
    """
    chosen: Ints = (at[:, None] >= cumulative[:, :-1]).sum(axis=1)
    return chosen


def cumulative_softmax(logits: Floats) -> Floats:
    """Shape: (N, K) -> (N, K), the running sum of each row's softmax."""
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    running: Floats = np.cumsum(weights, axis=1)
    return running / running[:, -1:]


def _draw_users(n: int, rng: np.random.Generator) -> Users:
    age_band = rng.choice(6, n, p=[0.12, 0.24, 0.22, 0.18, 0.14, 0.10])
    city_tier = rng.choice(4, n, p=[0.3, 0.3, 0.25, 0.15])
    device = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    taste = (
        0.6 * rng.standard_normal((6, CATEGORIES))[age_band]
        + 0.4 * rng.standard_normal((4, CATEGORIES))[city_tier]
        + 0.3 * rng.standard_normal((3, CATEGORIES))[device]
        + 0.6 * rng.standard_normal((n, CATEGORIES))
    )
    price_level = 0.4 * rng.standard_normal(n) - 0.08 * (city_tier - 1.5)
    sensitivity = np.exp(0.35 * rng.standard_normal(n) - 0.06)
    spending = 0.3 * rng.standard_normal(n) + 0.1 * (age_band - 2)
    stated = taste + 0.3 * rng.standard_normal(taste.shape)
    return Users(
        taste=taste,
        price_level=price_level,
        sensitivity=sensitivity,
        engagement=np.array([0.25, 0.0, -0.4])[device] + 0.16 * rng.standard_normal(n),
        spending=spending,
        patience=0.3 * rng.standard_normal(n) + 0.06 * (age_band - 2),
        activity=np.exp(1.0 * rng.standard_normal(n)),
        chronotype=rng.choice(CHRONOTYPES, n, p=[0.4, 0.6]),
        quest=_draw_quests(taste, rng),
        joined=np.where(rng.random(n) < 0.85, 0, rng.integers(1, DAYS, n)),
        age_band=age_band,
        city_tier=city_tier,
        device=device,
        income_band=np.digitize(price_level + 0.3 * rng.standard_normal(n), [-0.5, -0.17, 0.17, 0.5]),
        price_preference=np.exp(price_level + 0.1 * rng.standard_normal(n)),
        loyalty_tier=np.digitize(spending + 0.08 * rng.standard_normal(n), [-0.4, -0.1, 0.2, 0.5]),
        coupon_use=np.digitize(sensitivity + 0.15 * rng.standard_normal(n), [0.6, 0.9, 1.3]),
        interest=np.clip(np.rint(5 + 2 * stated), 0, 10).astype(np.int64),
    )


def _draw_quests(taste: Floats, rng: np.random.Generator) -> Ints:
    """What each user is looking for, changing every ten days or so towards a category they like."""
    n = len(taste)
    leaning = cumulative_softmax(taste)
    quests = np.empty((n, DAYS), np.int64)
    for day in range(DAYS):
        category = pick(leaning, rng.random(n))
        fresh = category * 4 + rng.integers(0, 4, n)
        quests[:, day] = fresh if day == 0 else np.where(rng.random(n) < 0.1, fresh, quests[:, day - 1])
    return quests


def _draw_items(n: int, rng: np.random.Generator) -> Items:
    subcategory = rng.choice(SUBCATEGORIES, n, p=_zipf(SUBCATEGORIES, rng))
    category = subcategory // 4
    brand = rng.choice(BRANDS, n, p=_zipf(BRANDS, rng))
    tags = np.sort(np.argsort(rng.random((n, TAGS)), axis=1)[:, :TAGS_PER_ITEM], axis=1)
    quality = 0.5 * rng.standard_normal(BRANDS)[brand] + 0.86 * rng.standard_normal(n)
    appeal = (
        0.22 * rng.standard_normal(BRANDS)[brand]
        + 0.22 * rng.standard_normal(TAGS)[tags].mean(axis=1) * np.sqrt(TAGS_PER_ITEM)
        + 0.15 * rng.standard_normal(SUBCATEGORIES)[subcategory]
        + 0.4 * rng.standard_normal(n)
    )
    list_level = np.exp(0.45 * rng.standard_normal(n) + 0.12 * quality)
    usual_price = np.exp(3.2 + 0.8 * rng.standard_normal(CATEGORIES))
    trend = _draw_trends(n, rng)
    return Items(
        quality=quality,
        appeal=appeal,
        trend=trend,
        exposure=np.exp(0.8 * rng.standard_normal(n) + 0.6 * appeal + 0.2 * quality),
        launched=np.where(rng.random(n) < 0.85, 0, rng.integers(1, DAYS, n)),
        subcategory=subcategory,
        category=category,
        brand=brand,
        tags=tags,
        list_price=usual_price[category] * list_level,
        list_level=list_level,
        discount=rng.choice([0.0, 0.1, 0.2, 0.3], (n, WEEKS), p=[0.6, 0.15, 0.15, 0.1]),
        rating=np.clip(4.0 + 0.4 * quality + 0.05 * rng.standard_normal(n), 1.0, 5.0),
        reviews=np.floor(np.exp(3.0 + 1.2 * rng.standard_normal(n))).astype(np.int64),
    )


def _draw_trends(n: int, rng: np.random.Generator) -> Floats:
    """A slow random walk around zero, standard deviation 0.3, half forgotten after eight days."""
    keep, deviation = 0.92, 0.3
    trend = np.empty((n, DAYS + 1))
    trend[:, 0] = deviation * rng.standard_normal(n)
    for day in range(DAYS):
        shock = deviation * np.sqrt(1 - keep**2) * rng.standard_normal(n)
        trend[:, day + 1] = keep * trend[:, day] + shock
    return trend


def _zipf(n: int, rng: np.random.Generator) -> Floats:
    """Shares falling like a power of the rank, in random order."""
    weights = rng.permutation(1.0 / np.arange(3, n + 3) ** 0.7)
    shares: Floats = weights / weights.sum()
    return shares
