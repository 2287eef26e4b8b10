"""A simulated shop with hidden tastes: data of any size to learn from, and the truth to measure against."""

from mtl_rank.datasets.shop.simulate import ShopSummary, simulate_shop

__all__ = ["ShopSummary", "simulate_shop"]
