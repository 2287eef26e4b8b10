"""A feature row reaches an impression at the very time of its stamp, and not a microsecond earlier."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

import mtl_rank as mr
from mtl_rank.data.encoder import FeatureEncoder
from mtl_rank.datasets.projects import apply_features
from mtl_rank.runs import Run

DEFINITIONS = """
from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Float32, Int64
from views import item_profile, item_stats, user_profile, user_stats

impression = Entity(
    name="impression", join_keys=["impression_id"], value_type=ValueType.INT64, tags={"mtlrank.role": "ignore"}
)


def planted(name: str) -> FeatureView:
    return FeatureView(
        name=name,
        entities=[impression],
        ttl=timedelta(days=1),
        source=FileSource(name=name, path=f"../data/{name}.parquet", timestamp_field="event_timestamp"),
        schema=[Field(name="clicked", dtype=Int64), Field(name="strength", dtype=Float32)],
    )


exactly_at, just_after = planted("exactly_at"), planted("just_after")
basis = [user_profile, user_stats, item_profile, item_stats]
knowing = FeatureService(name="knowing", features=[*basis, exactly_at])
unknowing = FeatureService(name="unknowing", features=[*basis, just_after])
"""


@pytest.fixture(scope="module")
def planted(applied: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shop with the answer to every impression planted as a feature: at its time, and a microsecond later."""
    project = shutil.copytree(applied, tmp_path_factory.mktemp("planted") / "shop")
    answers = pl.read_parquet(project / "data/impressions.parquet").select(
        "impression_id", "event_timestamp", "clicked", strength=pl.col("clicked").cast(pl.Float32)
    )
    late = pl.col("event_timestamp") + pl.duration(microseconds=1)
    answers.write_parquet(project / "data/exactly_at.parquet")
    answers.with_columns(late).write_parquet(project / "data/just_after.parquet")
    (project / "feature_repo/planted.py").write_text(DEFINITIONS)
    apply_features(project / "feature_repo")
    return project


def run_with(project: Path, service: str) -> Run:
    return mr.train(project, ["ctr"], {"feature_service": service, "fit.epochs": 4, "fit.batch_size": 128})


@pytest.fixture(scope="module")
def knowing(planted: Path) -> Iterator[Run]:
    return run_with(planted, "knowing")


@pytest.fixture(scope="module")
def unknowing(planted: Path) -> Iterator[Run]:
    return run_with(planted, "unknowing")


def test_a_row_exactly_at_the_impression_is_encoded(knowing: Run) -> None:
    encoder = FeatureEncoder.load(knowing.encoder_folder)
    assert encoder.lookups["exactly_at__clicked"].keys.to_list() == [0, 1]
    assert not encoder.scalers["exactly_at__strength"].has_missing


def test_a_row_one_microsecond_after_is_encoded_nowhere(unknowing: Run) -> None:
    encoder = FeatureEncoder.load(unknowing.encoder_folder)
    assert encoder.lookups["just_after__clicked"].keys.to_list() == []
    scaler = encoder.scalers["just_after__strength"]
    assert scaler.has_missing
    assert scaler.bin_rows <= 1


def test_the_trained_model_knows_the_answer_only_where_it_was_known_in_time(
    knowing: Run, unknowing: Run
) -> None:
    assert knowing.metrics()["test"]["tasks"]["ctr"]["auc"] > 0.999
    assert unknowing.metrics()["test"]["tasks"]["ctr"]["auc"] < 0.9
