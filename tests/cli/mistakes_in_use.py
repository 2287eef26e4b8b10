"""Mistakes in the options of a command, in runs, and in what is scored or measured."""

import polars as pl
from spoiling import (
    CANDIDATES,
    Case,
    candidates,
    duckdb_file,
    halved_weights,
    of_run,
    run_that,
    second_run,
    sqlite_file,
    table,
    text,
    user_key,
    without,
)

TO_FILE = ("--candidates", CANDIDATES, "--to", "scores.duckdb")

OPTIONS = (
    Case("unknown task", "train --tasks ctr,cvrr", ("--tasks", "'cvrr'", "'cvr'")),
    Case("a task twice", "train --tasks ctr,ctr", ("--tasks", "once")),
    Case("no task", ("train", "--tasks", ""), ("--tasks",)),
    Case("a task without its parent", "train --tasks cvr", ("--tasks", "ctr,cvr")),
    Case("unknown --model", "train --model shared_botom", ("model.name", "'shared_bottom'")),
    Case("unknown --weighting", "train --weighting loss-scale", ("weighting.method", "'loss_scale'")),
    Case("lambda without value", "train --weighting manual --lambda ctr", ("--lambda ctr", "task=factor")),
    Case("lambda of text", "train --weighting manual --lambda ctr=big", ("--lambda ctr=big", "task=factor")),
    Case("lambda of nothing", "train --weighting manual --lambda =1", ("lambda", "task")),
    Case(
        "lambda of an unknown task",
        "train --weighting manual --lambda cvrr=1",
        ("lambdas", "'cvrr'", "'cvr'"),
    ),
    Case(
        "lambda of a task that is left out",
        "train --tasks ctr,cvr --weighting manual --lambda dwell=5",
        ("weighting.lambdas.dwell", "not trained", "ctr,cvr"),
    ),
    Case(
        "a setting of a task that tune leaves out",
        ("tune", "--tasks", "ctr,cvr", "--set", "fit.monitor_weights={dwell: 2}"),
        ("fit.monitor_weights", "dwell", "not trained"),
    ),
    Case("negative lambda", "train --weighting manual --lambda ctr=-1", ("lambdas.ctr", "-1")),
    Case("lambda nan", "train --weighting manual --lambda ctr=nan", ("lambdas.ctr", "nan")),
    Case(
        "lambda infinite",
        "train --weighting manual --lambda ctr=inf",
        ("lambdas.ctr", "inf"),
    ),
    Case(
        "a learning rate that explodes",
        ("train", "--tasks", "ctr", "--set", "fit.lr=1e30", "--set", "fit.precision=fp32"),
        ("fit.lr",),
    ),
    Case(
        "every lambda 0",
        "train --weighting manual --lambda ctr=0 --lambda cvr=0 --lambda dwell=0",
        ("lambdas", "0"),
    ),
    Case(
        "lambda where it is learned",
        "train --weighting uncertainty --lambda ctr=1",
        ("lambdas", "uncertainty", "manual"),
    ),
    Case("settings of a model that is only described", "models mmoe --set model.dim=8", ("--set", "--like")),
    Case("settings of no model", "models --set model.dim=8", ("--set", "--like")),
    Case(
        "crosses without a wide branch",
        ("train", "--model", "mmoe", "--set", "model.wide.crosses=[[user_id, houre]]"),
        ("model.wide.crosses", "model.branches"),
    ),
    Case("set without value", "train --set model.experts", ("--set model.experts", "key=value")),
    Case("set without key", "train --set =3", ("--set =3", "key=value")),
    Case("set an unknown key", "train --set model.expert=3", ("'model.expert'", "'experts'")),
    Case("set an unknown section", "train --set modle.experts=3", ("'modle'", "'model'")),
    Case("set a wrong type", "train --set fit.lr=fast", ("fit.lr", "'fast'")),
    Case("set below a value", "train --set feature_repo.path=x", ("--set feature_repo.path", "feature_repo")),
    Case("set no YAML", "train --set model.experts=[", ("--set model.experts=[", "YAML")),
    Case("set an empty name", "train --set feature_service=", ("feature_service",)),
    Case("unknown option", "train --task ctr", ("--task", "--tasks")),
    Case("unknown command", "trian", ("'trian'", "'train'")),
    Case("option missing", "score --to scores.duckdb", ("--candidates",)),
    Case("no number", "simulate --rows many", ("--rows",)),
    Case("too few rows", "simulate --rows 10 --out new", ("10 rows", "1000")),
    Case("negative seed", "simulate --seed -1 --out new", ("seed", "-1")),
    Case("simulate into a file", "simulate --rows 1000 --out mtlrank.yaml", ("mtlrank.yaml", "folder")),
    Case("init into a folder in use", "init .", ("not an empty folder",)),
    Case("init onto a file", "init mtlrank.yaml", ("mtlrank.yaml", "folder")),
    Case("init below a file", "init mtlrank.yaml/new", ("mtlrank.yaml",)),
    Case("unknown template", "init new --template shp", ("--template", "'shp'", "'shop'")),
    Case("kuairand without source", "init new --template kuairand", ("--source",)),
    Case("kuairand from nowhere", "init new --template kuairand --source gone", ("gone",)),
    Case("shop with source", "init new --source data", ("--source", "shop")),
)

WITHOUT_LABEL = "SELECT * RENAME (clicked AS click) FROM 'data/impressions.parquet'"

RUNS = (
    Case("no run", "evaluate", ("runs", "mtlrank train")),
    Case("no run to score with", ("score", *TO_FILE), ("runs", "mtlrank train")),
    Case("no run of that name", "evaluate 2026", ("'2026'",)),
    Case("no run to continue", "train --resume latest", ("runs", "no run to continue")),
    Case("no run of that name to continue", "train --resume 2026", ("'2026'",)),
    Case("continuing with other tasks", "train --resume latest --tasks ctr", ("--resume", "other options")),
)

FINISHED_RUN = (
    Case(
        "export below a file",
        "export --format torch --to mtlrank.yaml/there",
        ("--to", "mtlrank.yaml is a file"),
    ),
    Case("unknown run", "evaluate nosuch", ("'nosuch'",)),
    Case("continuing a finished run", "train --resume 20", ("is finished",)),
    Case("unknown run to score with", ("score", "nosuch", *TO_FILE), ("'nosuch'",)),
    Case("half a name of two runs", "evaluate 20", ("'20'", "2 runs"), second_run),
    Case("a run that failed", "evaluate 20", ("is failed",), run_that("failed")),
    Case("a run that was stopped", ("score", "20", *TO_FILE), ("is interrupted",), run_that("interrupted")),
    Case("only a run that failed", "evaluate", ("no finished run",), run_that("failed")),
    Case("run.json damaged", "evaluate", ("run.json",), of_run("run.json", b"{")),
    Case("config.yaml missing", "evaluate", ("config.yaml",), of_run("config.yaml", None)),
    Case("config.yaml damaged", "evaluate", ("config.yaml",), of_run("config.yaml", b"tasks: [")),
    Case("encoder missing", "evaluate", ("encoder",), of_run("encoder/encoder.json", None)),
    Case(
        "a vocabulary damaged",
        "evaluate",
        ("encoder", "vocabulary_000"),
        of_run("encoder/vocabulary_000.parquet", b"PAR1"),
    ),
    Case("weights missing", "evaluate", ("model.safetensors",), of_run("model.safetensors", None)),
    Case("weights cut short", ("score", *TO_FILE), ("model.safetensors",), halved_weights),
    Case(
        "unknown user_key", "evaluate --examples data/impressions.parquet", ("'user'", "'user_id'"), user_key
    ),
    Case("unknown split", "evaluate --split tset", ("--split", "'tset'", "'test'")),
    Case("examples missing", "evaluate --examples data/gone.parquet", ("gone.parquet",)),
    Case("examples without label", f"evaluate --examples {CANDIDATES}", (CANDIDATES, "'position'")),
    Case("labels missing", ("evaluate", "--examples", WITHOUT_LABEL), ("'clicked'", "'click'")),
    Case("unknown slice", "evaluate --by positon", ("--by", "positon", "'position'")),
    Case("unknown run to report on", "report 2019", ("'2019'",)),
    Case("report on damaged numbers", "report", ("metrics.json",), of_run("metrics.json", b"{")),
    Case("one run to compare", "compare 20", ("compare", "two or more")),
    Case("unknown run to compare", "compare 20 2019", ("'2019'",)),
    Case(
        "registry gone",
        "evaluate",
        ("never applied", "feast apply"),
        without("feature_repo/data/registry.db"),
    ),
    Case("truth damaged", "evaluate", ("truth.parquet",), text(b"PAR1", "data/truth.parquet")),
    Case(
        "truth without its key",
        "evaluate",
        ("truth.parquet", "'impression_id'"),
        table("data/truth.parquet", lambda t: t.rename({"impression_id": "id"})),
    ),
    Case(
        "truth with another key type",
        "evaluate",
        ("truth.parquet", "impression_id"),
        table("data/truth.parquet", lambda t: t.with_columns(pl.col("impression_id").cast(pl.String))),
    ),
    Case(
        "truth known twice",
        "evaluate",
        ("truth.parquet", "impression_id"),
        table("data/truth.parquet", lambda t: pl.concat([t, t])),
    ),
    Case(
        "candidates missing",
        "score --candidates data/candidate.parquet --to s.duckdb",
        ("candidate.parquet", "candidates.parquet"),
    ),
    Case("candidates empty", ("score", *TO_FILE), (CANDIDATES, "no rows"), candidates(lambda t: t.head(0))),
    Case(
        "candidates without a key",
        ("score", *TO_FILE),
        (CANDIDATES, "'item_id'"),
        candidates(lambda t: t.drop("item_id")),
    ),
    Case(
        "candidates without context",
        ("score", *TO_FILE),
        (CANDIDATES, "'hour'"),
        candidates(lambda t: t.drop("hour")),
    ),
    Case(
        "a candidate without time",
        ("score", *TO_FILE),
        ("event_timestamp", "1 of"),
        candidates(
            lambda t: t.with_columns(
                event_timestamp=pl.when(pl.int_range(pl.len()) != 9).then("event_timestamp")
            )
        ),
    ),
    Case(
        "candidates without time",
        ("score", *TO_FILE),
        ("'event_timestamp'",),
        candidates(lambda t: t.drop("event_timestamp")),
    ),
    Case(
        "keys changed their type",
        ("score", *TO_FILE),
        ("'user_id'", "VARCHAR"),
        candidates(lambda t: t.with_columns(pl.col("user_id").cast(pl.String))),
    ),
    Case(
        "candidates by DELETE",
        ("score", "--candidates", f"DELETE FROM '{CANDIDATES}'", "--to", "s.duckdb"),
        ("one SELECT",),
    ),
    Case(
        "no table of that name",
        "score --candidates scores.duckdb:pairs --to s.duckdb",
        ("pairs",),
        duckdb_file("CREATE TABLE pears (i INT)"),
    ),
    Case("no time", ("score", *TO_FILE, "--as-of", "noon"), ("--as-of noon",)),
    Case("scores into a folder", ("score", "--candidates", CANDIDATES, "--to", "data"), ("data", "folder")),
    Case(
        "scores into no folder",
        ("score", "--candidates", CANDIDATES, "--to", "gone/s.duckdb"),
        ("gone", "does not exist"),
    ),
    Case(
        "scores below a file",
        ("score", "--candidates", CANDIDATES, "--to", "mtlrank.yaml/s.duckdb"),
        ("mtlrank.yaml",),
    ),
    Case(
        "scores into text",
        ("score", "--candidates", CANDIDATES, "--to", "mtlrank.yaml"),
        ("mtlrank.yaml", "not a DuckDB"),
    ),
    Case("scores into SQLite", ("score", *TO_FILE), ("scores.duckdb", "not a DuckDB"), sqlite_file),
    Case(
        "scores into a view",
        ("score", *TO_FILE),
        ("view", "--table"),
        duckdb_file("CREATE VIEW scores AS SELECT 1 AS user_id"),
    ),
    Case(
        "scores into another table",
        ("score", *TO_FILE),
        ("scores", "--table"),
        duckdb_file("CREATE TABLE scores (user_id BIGINT)"),
    ),
    Case(
        "a candidate without a key",
        ("score", *TO_FILE),
        (CANDIDATES, "1 of", "'user_id'", "--null-keys"),
        candidates(lambda t: t.with_columns(user_id=pl.when(pl.int_range(pl.len()) != 9).then("user_id"))),
    ),
    Case(
        "candidates given twice",
        ("score", *TO_FILE, "--duplicates", "error"),
        (CANDIDATES, "2 rows are duplicates", "user_id", "--duplicates drop"),
        candidates(lambda t: pl.concat([t, t.head(2)])),
    ),
    Case(
        "unknown rule for duplicates", ("score", *TO_FILE, "--duplicates", "dorp"), ("--duplicates", "'drop'")
    ),
    Case(
        "unknown rule for keys",
        ("score", *TO_FILE, "--null-keys", "none"),
        ("--null-keys", "drop, error, keep"),
    ),
    Case("features.json damaged", ("score", *TO_FILE), ("features.json",), of_run("features.json", b"{")),
    Case(
        "features changed since",
        ("score", *TO_FILE),
        ("ranking_v1", "user_stats is new", "--allow-changed-features"),
        of_run("features.json", b'{"service": "ranking_v1", "views": {}}'),
    ),
    Case("jobs of no file", "jobs --to gone.duckdb", ("gone.duckdb", "does not exist")),
    Case("jobs of a text", "jobs --to mtlrank.yaml", ("mtlrank.yaml", "not a DuckDB")),
    Case("table without name", ("score", *TO_FILE, "--table", ""), ("scores table",)),
)
