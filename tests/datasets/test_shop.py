"""The demo shop: the same shop every time, honest about its truth, and blind to the future."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from polars.testing import assert_frame_equal
from shop_tables import CHECKOUT, KEYS, TABLES, read_shop

from mtl_rank.datasets.shop import ShopSummary, simulate_shop

ROWS = 60_000
FIRST, END = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 31, tzinfo=UTC)


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> ShopSummary:
    return simulate_shop(tmp_path_factory.mktemp("shop") / "data", rows=ROWS, seed=11)


@pytest.fixture(scope="module")
def shop(summary: ShopSummary) -> dict[str, pl.DataFrame]:
    return read_shop(summary.files[0].parent)


@pytest.fixture(scope="module")
def past(shop: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """The impressions with the price level that the item's profile showed at the time."""
    level = shop["item_profile"].select("item_id", "event_timestamp", "price_level")
    return shop["impressions"].join_asof(level, on="event_timestamp", by="item_id", check_sortedness=False)


def same(one: dict[str, pl.DataFrame], other: dict[str, pl.DataFrame]) -> bool:
    return one.keys() == other.keys() and all(one[name].equals(other[name]) for name in one)


def smoothed(part: float, whole: int, prior: float, weight: int) -> float:
    return (part + prior * weight) / (whole + weight)


# The same shop every time


def test_the_committed_sample_is_what_the_simulator_makes(tmp_path: Path) -> None:
    simulate_shop(tmp_path / "data")
    fresh, committed = read_shop(tmp_path / "data"), read_shop(CHECKOUT / "data")
    assert fresh.keys() == committed.keys() == TABLES
    for name in TABLES:
        assert_frame_equal(fresh[name], committed[name], check_exact=True)
        ours, theirs = tmp_path / "data" / f"{name}.parquet", CHECKOUT / "data" / f"{name}.parquet"
        # Another version of the writer may lay out the same values otherwise.
        if pq.read_metadata(ours).created_by == pq.read_metadata(theirs).created_by:
            assert ours.read_bytes() == theirs.read_bytes(), name
    assert sum(path.stat().st_size for path in (CHECKOUT / "data").iterdir()) < 4_000_000


def test_a_seed_names_one_shop_and_rows_another(tmp_path: Path) -> None:
    for name, rows, seed in [("a", 5_000, 1), ("b", 5_000, 1), ("c", 5_000, 2), ("d", 5_001, 1)]:
        simulate_shop(tmp_path / name, rows=rows, seed=seed)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
    shops = [read_shop(tmp_path / name) for name in "acd"]
    assert not same(shops[0], shops[1])
    assert not same(shops[0], shops[2])


@pytest.mark.parametrize("rows", [1_000, 1_237, 50_001])
def test_there_are_exactly_as_many_rows_as_asked_for(tmp_path: Path, rows: int) -> None:
    steps: list[tuple[int, int]] = []
    summary = simulate_shop(tmp_path / "shop", rows=rows, progress=lambda *step: steps.append(step))
    shop = read_shop(tmp_path / "shop")
    impressions = shop["impressions"]
    assert summary.rows == len(impressions) == len(shop["truth"]) == rows
    assert impressions["impression_id"].to_list() == list(range(1, rows + 1))
    assert steps == [(day, 30) for day in range(1, 31)]
    assert {path.stem for path in summary.files} == TABLES
    assert summary.rates["ctr"] == pytest.approx(impressions["clicked"].mean())
    assert summary.users >= impressions["user_id"].n_unique()
    assert summary.items >= impressions["item_id"].n_unique()


# What an impression is


def test_impressions_are_pages_in_time_order(shop: dict[str, pl.DataFrame]) -> None:
    impressions = shop["impressions"]
    assert impressions["event_timestamp"].is_sorted()
    assert impressions["event_timestamp"].is_between(FIRST, END, closed="left").all()
    assert impressions["event_timestamp"].dt.date().n_unique() == 30
    assert (impressions["event_timestamp"].dt.hour() == impressions["hour"]).all()
    pages = impressions.group_by("request_id").agg(
        size=pl.len(),
        users=pl.col("user_id").n_unique(),
        times=pl.col("event_timestamp").n_unique(),
        items=pl.col("item_id").n_unique(),
        positions=pl.col("position").n_unique(),
        first=pl.col("position").min(),
        last=pl.col("position").max(),
    )
    assert (pages["users"] == 1).all()
    assert (pages["times"] == 1).all()
    assert (pages["items"] == pages["size"]).all()
    assert (pages["positions"] == pages["size"]).all()
    assert (pages["first"] == 1).all()
    assert (pages["last"] == pages["size"]).all()


def test_labels_follow_one_another(shop: dict[str, pl.DataFrame]) -> None:
    impressions = shop["impressions"]
    skipped = impressions.filter(clicked=0)
    assert skipped["dwell_seconds"].null_count() == len(skipped)
    assert (skipped["purchased"] == 0).all()
    clicked = impressions.filter(clicked=1)
    assert clicked["dwell_seconds"].null_count() == 0
    assert (clicked["dwell_seconds"] > 0).all()
    assert 0.08 <= len(clicked) / len(impressions) <= 0.16
    assert 0.05 <= clicked["purchased"].mean() <= 0.13


# The truth


@pytest.mark.parametrize(
    ("task", "label"), [("ctr", "clicked"), ("cvr", "purchased"), ("dwell", "dwell_seconds")]
)
def test_the_truth_is_calibrated_in_every_decile(
    shop: dict[str, pl.DataFrame], task: str, label: str
) -> None:
    rows = shop["impressions"].join(shop["truth"], on="impression_id", validate="1:1")
    if task != "ctr":
        rows = rows.filter(clicked=1)
    deciles = (
        rows.with_columns(decile=(pl.col(task).rank("ordinal") - 1) * 10 // len(rows))
        .group_by("decile")
        .agg(
            rows=pl.len(),
            seen=pl.col(label).mean(),
            told=pl.col(task).mean(),
            noise=(pl.col(label) - pl.col(task)).std() / pl.len().sqrt(),
        )
        .sort("decile")
    )
    assert len(deciles) == 10
    error = rows[label] - rows[task]
    assert abs(error.mean()) < 4 * error.std() / len(rows) ** 0.5
    assert ((deciles["seen"] - deciles["told"]).abs() < 4 * deciles["noise"]).all(), deciles
    assert deciles["told"][9] > 2 * deciles["told"][0]


# No row knows the future


@pytest.mark.parametrize("name", ["user_stats", "item_stats", "user_category"])
def test_counts_are_those_of_the_impressions_before_the_stamp(
    shop: dict[str, pl.DataFrame], past: pl.DataFrame, name: str
) -> None:
    keys, table = KEYS[name], shop[name]
    hours = past.select(*keys, pl.col("event_timestamp").dt.truncate("1h") + timedelta(hours=1)).unique()
    assert len(table.join(hours, on=[*keys, "event_timestamp"], how="semi")) == len(hours)

    for row in table.sample(400, seed=3).iter_rows(named=True):
        known = row["event_timestamp"]
        before = past.filter(*(pl.col(key) == row[key] for key in keys), pl.col("event_timestamp") < known)
        clicked = before.filter(clicked=1)
        sold = int(before["purchased"].sum())
        expected: dict[str, float] = {
            "impressions": len(before),
            "clicks": len(clicked),
            "purchases": sold,
            "purchase_rate": smoothed(sold, len(clicked), 0.1, 10),
            "mean_dwell": smoothed(clicked["dwell_seconds"].sum(), len(clicked), 25, 3),
            "usual_price_level": smoothed(clicked["price_level"].sum(), len(clicked), 1, 2),
            "click_rate": smoothed(len(clicked), len(before), 0.1, 8 if name == "user_category" else 20),
        }
        for days in (1, 7):
            recent = before.filter(pl.col("event_timestamp") >= known - timedelta(days=days))
            expected[f"impressions_{days}d"] = len(recent)
            expected[f"clicks_{days}d"] = int(recent["clicked"].sum())
            expected[f"click_rate_{days}d"] = smoothed(expected[f"clicks_{days}d"], len(recent), 0.1, 20)
        told = {k: v for k, v in row.items() if k in expected}
        assert len(told) >= 5
        assert told == pytest.approx({k: expected[k] for k in told}, abs=2e-4), row


def test_a_history_is_the_last_fifty_clicks_before_the_stamp(shop: dict[str, pl.DataFrame]) -> None:
    clicks = shop["impressions"].filter(clicked=1)
    history = shop["user_history"]
    longest = history.sort(pl.col("clicked_items").list.len()).tail(100)
    assert longest["clicked_items"].list.len().max() == 50
    for row in pl.concat([longest, history.sample(200, seed=3)]).iter_rows(named=True):
        before = clicks.filter(
            pl.col("user_id") == row["user_id"], pl.col("event_timestamp") < row["event_timestamp"]
        )
        assert row["clicked_items"] == before["item_id"].tail(50).to_list()


def test_every_impression_finds_its_profiles(shop: dict[str, pl.DataFrame]) -> None:
    for name in ("user_profile", "item_profile", "user_category"):
        for rows in (shop["impressions"], shop["candidates"]):
            source = shop[name].with_columns(known=pl.col("event_timestamp"))
            joined = rows.sort("event_timestamp").join_asof(
                source.sort("event_timestamp"), on="event_timestamp", by=KEYS[name], check_sortedness=False
            )
            assert joined["known"].null_count() == 0, name


def test_candidates_come_after_everything_known(shop: dict[str, pl.DataFrame]) -> None:
    candidates = shop["candidates"]
    assert len(candidates) == len(candidates.unique(["user_id", "item_id"])) == 4_000
    assert candidates["event_timestamp"].min() > END
    for name, keys in KEYS.items():
        assert shop[name]["event_timestamp"].max() <= END
        assert not shop[name].select(*keys, "event_timestamp").is_duplicated().any(), name
    category = shop["impressions"].select("item_id", "category_id").unique()
    assert category["item_id"].is_unique().all()
    assert len(candidates.join(category, on=["item_id", "category_id"])) == len(
        candidates.filter(pl.col("item_id").is_in(category["item_id"].implode()))
    )


# What there is to learn


def test_what_a_source_tells_agrees_with_the_truth(shop: dict[str, pl.DataFrame]) -> None:
    """A model can learn from the sources: each of these moves the true probability its own way."""
    rows = shop["impressions"].join(shop["truth"], on="impression_id").sort("event_timestamp")
    for name, keys in KEYS.items():
        source = shop[name].drop("created", strict=False).sort("event_timestamp")
        source = source.rename(
            {c: f"{name}.{c}" for c in source.columns if c not in [*keys, "event_timestamp"]}
        )
        rows = rows.join_asof(source, on="event_timestamp", by=keys, check_sortedness=False)
    late = rows.filter(pl.col("event_timestamp") >= datetime(2026, 3, 15, tzinfo=UTC))
    gap = (late["item_profile.price_level"] / late["user_profile.price_preference"]).log().abs()
    late = late.with_columns(price_gap=gap)
    signs = {
        ("ctr", "position"): -1,
        ("ctr", "user_category.stated_interest"): 1,
        ("ctr", "user_category.click_rate"): 1,
        ("ctr", "item_stats.click_rate"): 1,
        ("ctr", "user_stats.click_rate"): 1,
        ("ctr", "price_gap"): -1,
        ("cvr", "item_profile.rating"): 1,
        ("cvr", "item_profile.discount"): 1,
        ("cvr", "user_profile.loyalty_tier"): 1,
        ("cvr", "price_gap"): -1,
    }
    for (task, feature), sign in signs.items():
        pair = late.select(pl.corr(feature, task, method="spearman")).item()
        assert 0.05 < sign * pair < 0.75, (task, feature, pair)
