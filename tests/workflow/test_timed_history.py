"""A history with times, from the feature store to the file that is exported."""

from pathlib import Path

import polars as pl

import mtl_rank as mr
from mtl_rank.data.cache import prepared
from mtl_rank.datasets.projects import apply_features
from mtl_rank.features.repository import open_repository
from mtl_rank.predict import Predictor
from mtl_rank.progress import Silent

SEQUENCE, TIMES = "user_history__clicked_items", "user_history__clicked_at"


def test_bst_reads_the_times_of_a_history(project: Path) -> None:
    path = project / "data" / "user_history.parquet"
    history = pl.read_parquet(path)
    # Every click at the time of the row, which is that of the last one.
    clicked_at = (
        history.with_row_index("row")
        .explode("clicked_items")
        .group_by("row", maintain_order=True)
        .agg(pl.col("event_timestamp").alias("clicked_at"))
    )
    history.with_columns(clicked_at["clicked_at"]).write_parquet(path)
    views = project / "feature_repo" / "views.py"
    text = views.read_text(encoding="utf-8")
    text = text.replace('"mtlrank.max_len": "50"}', f'"mtlrank.max_len": "50", "mtlrank.times": "{TIMES}"}}')
    text = text.replace(
        '            name="clicked_items",',
        '            name="clicked_at", dtype=Array(UnixTimestamp), tags={"mtlrank.role": "ignore"}\n'
        '        ),\n        Field(\n            name="clicked_items",',
    )
    views.write_text(text.replace("Array, Float32, Int64", "Array, Float32, Int64, UnixTimestamp"))
    apply_features(project / "feature_repo")

    run = mr.train(
        project, ["ctr", "cvr"], {"model.name": "bst", "fit.epochs": 1, "fit.monitor": "valid/ctr/ne"}
    )
    predictor = Predictor.load(run)
    assert [column.name for column in predictor.encoder.layout.timed] == [SEQUENCE]
    config = run.config()
    repository = open_repository(project / "feature_repo", config.feature_service, config.context)
    rows = prepared(config, project, repository, Silent()).train.arrays
    (gaps,) = rows.gaps
    index = [column.name for column in predictor.encoder.layout.sequences].index(SEQUENCE)
    there = rows.sequences[index] != predictor.encoder.layout.sequences[index].pad_id
    assert gaps[there].min() >= 1
    assert len(set(gaps[there].tolist())) > 5

    found = mr.export(project, run.id, "torch")
    assert found.inputs[-1] == f"{SEQUENCE}#gaps"
    assert found.difference < 1e-4
    scored = mr.score(project, run.id, candidates="data/candidates.parquet", to=project / "scores.duckdb")
    assert scored.rows > 0
