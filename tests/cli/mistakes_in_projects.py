"""Mistakes in mtlrank.yaml, in the feature repository and in the examples."""

import polars as pl
from harness import set_keys
from spoiling import IMPRESSIONS, Case, cut_short, examples, keys, table, text, without

SELECT = f"SELECT * FROM '{IMPRESSIONS}'"

MTLRANK_YAML = (
    Case("no mtlrank.yaml", "train", ("mtlrank.yaml", "mtlrank init"), without("mtlrank.yaml")),
    Case("no mtlrank.yaml, listing runs", "runs", ("mtlrank.yaml", "mtlrank init"), without("mtlrank.yaml")),
    Case("no such project", "--project nowhere runs", ("--project", "nowhere", "mtlrank init")),
    Case("not YAML", "train", ("mtlrank.yaml", "line 2", "not YAML"), text("tasks:\n  ctr: [}\n")),
    Case("not text", "train", ("mtlrank.yaml",), text(b"\xff\xfe\x00tasks")),
    Case("empty", "train", ("mtlrank.yaml", "tasks:"), text("")),
    Case("a list", "train", ("mtlrank.yaml", "mapping"), text("- tasks\n")),
    Case("unknown section", "train", ("'modle'", "'model'"), keys(modle={"name": "mmoe"})),
    Case("unknown key", "train", ("'model.expert'", "'experts'"), keys(model__expert=4)),
    Case("unknown key of a task", "train", ("'tasks.ctr.lable'", "'label'"), keys(tasks__ctr__lable="x")),
    Case("unknown key of a column", "train", ("'context.hour.rol'", "'role'"), keys(context__hour__rol="x")),
    Case("a section is missing", "train", ("mtlrank.yaml", "'split'"), keys(split=None)),
    Case("text for a number", "train", ("model.experts", "'many'"), keys(model__experts="many")),
    Case("a negative number", "train", ("fit.epochs", "-1"), keys(fit__epochs=-1)),
    Case("no time", "train", ("split.valid", "'yesterday'"), keys(split__valid="yesterday")),
    Case("a file where the cache goes", "train", ("cache", "a folder"), text("", "cache")),
    Case("no day", "train --set split.valid=2026-02-30", ("split.valid", "2026-02-30")),
    Case("a task named as a column", "train --set tasks.run_id.label=clicked", ("run_id", "rename a task")),
    Case(
        "a join key as a context column",
        "train --set context.user_id.role=dense",
        ("context.user_id", "join key"),
    ),
    Case(
        "weights that are all 0",
        "train",
        ("weights", "w0"),
        keys(examples=f"SELECT *, 0 AS w0 FROM '{IMPRESSIONS}'", weights="w0"),
    ),
    Case(
        "tuning what is not manual",
        "tune --set weighting.method=uncertainty",
        ("weighting.method", "manual"),
    ),
    Case("no such user_key", "train --set user_key=user", ("user_key", "'user_id'")),
    Case("a seed too large", "train --set fit.seed=20261125120000", ("fit.seed", "4294967296")),
    Case("a list for a section", "train", ("tasks",), keys(tasks=["ctr"])),
    Case(
        "a name that is no name", "train", ("tasks", "click rate"), keys(tasks={"click rate": {"label": "c"}})
    ),
    Case("unknown role", "train", ("context.hour.role", "'number'"), keys(context__hour__role="number")),
    Case("unknown model", "train", ("model.name", "'mmoee'", "'mmoe'"), keys(model__name="mmoee")),
    Case(
        "unknown weighting",
        "train",
        ("weighting.method", "'uncertainty'"),
        keys(weighting__method="uncertanty"),
    ),
    Case("unknown monitor", "train", ("fit.monitor", "'valid/ctr/auc'"), keys(fit__monitor="valid/ctr/auk")),
    Case("monitor of a regression", "train", ("fit.monitor", "nmse"), keys(fit__monitor="valid/dwell/auc")),
    Case(
        "a weight of an unknown task",
        "train",
        ("fit.monitor_weights", "'ctrr'", "'ctr'"),
        keys(fit__monitor_weights={"ctrr": 2}),
    ),
    Case(
        "weights of a single metric",
        "train",
        ("fit.monitor_weights", "valid/ctr/auc"),
        keys(fit__monitor="valid/ctr/auc", fit__monitor_weights={"cvr": 2}),
    ),
    Case(
        "a kind without its classes",
        "train",
        ("tasks.ctr", "ordinal", "classes"),
        keys(tasks__ctr__kind="ordinal"),
    ),
    Case("unknown parent", "train", ("tasks.cvr.given", "'ctrr'", "'ctr'"), keys(tasks__cvr__given="ctrr")),
    Case("a cycle", "train", ("given", "cycle", "ctr given cvr"), keys(tasks__ctr__given="cvr")),
    Case("its own parent", "train", ("tasks.ctr.given", "cycle"), keys(tasks__ctr__given="ctr")),
    Case("a regression parent", "train", ("tasks.cvr.given", "'dwell'"), keys(tasks__cvr__given="dwell")),
    Case("test before valid", "train", ("split", "valid < test"), keys(split__test="2026-03-01")),
)

FEATURES = (
    Case("unknown service", "train", ("feature_service", "'ranking_v1'"), keys(feature_service="ranking_v2")),
    Case(
        "unknown service, shown",
        "features",
        ("feature_service", "'ranking_v1'"),
        keys(feature_service="rank_v1"),
    ),
    Case(
        "never applied",
        "train",
        ("feature_repo", "never applied", "feast apply"),
        without("feature_repo/data"),
    ),
    Case("folder missing", "train", ("feature_repo", "features_repo"), keys(feature_repo="features_repo")),
    Case(
        "no feature_store.yaml",
        "features",
        ("feature_store.yaml",),
        without("feature_repo/feature_store.yaml"),
    ),
    Case(
        "store not YAML",
        "features",
        ("feature_store.yaml", "line 1", "not YAML"),
        text("a: [", "feature_repo/feature_store.yaml"),
    ),
    Case("store empty", "features", ("feature_store.yaml",), text("", "feature_repo/feature_store.yaml")),
    Case(
        "unknown offline store",
        "features",
        ("feature_store.yaml", "ducky"),
        text(
            "project: shop\nprovider: local\nregistry: data/registry.db\noffline_store: {type: ducky}\n"
            "entity_key_serialization_version: 3\n",
            "feature_repo/feature_store.yaml",
        ),
    ),
    Case(
        "registry damaged",
        "features",
        ("registry", "feast apply"),
        text(b"\x00\x01\xff" * 99, "feature_repo/data/registry.db"),
    ),
    Case("source missing", "train", ("user_stats", "user_stats.parquet"), without("data/user_stats.parquet")),
    Case("source damaged", "train", ("user_stats",), text(b"PAR1 and no more", "data/user_stats.parquet")),
    Case("source cut short", "train", ("user_stats",), cut_short("data/user_stats.parquet")),
    Case(
        "source lacks a feature",
        "train",
        ("user_stats", "'clicks_7d'", "'clicks_1d'"),
        table("data/user_stats.parquet", lambda t: t.rename({"clicks_7d": "clicks_1d"})),
    ),
    Case(
        "feature changed its type",
        "train",
        ("user_stats.click_rate",),
        table("data/user_stats.parquet", lambda t: t.with_columns(click_rate=pl.lit("high"))),
    ),
    Case(
        "sharing with nothing",
        "train",
        ("context.hour", "'hour_id'", "'hour'"),
        keys(context__hour__shares="hour_id"),
    ),
)

EXAMPLES = (
    Case(
        "no examples",
        "train",
        ("impression.parquet", "impressions.parquet"),
        keys(examples="data/impression.parquet"),
    ),
    Case("empty table", "train", (IMPRESSIONS, "no rows"), examples(lambda t: t.head(0))),
    Case("empty file", "train", ("impressions.parquet",), text(b"", IMPRESSIONS)),
    Case(
        "not parquet",
        "train",
        ("impressions.parquet",),
        text("user_id,clicked\n", IMPRESSIONS),
    ),
    Case(
        "empty folder",
        "train",
        ("rows", ".parquet"),
        lambda p: (set_keys(p, {"examples": "rows"}), (p / "rows").mkdir()),
    ),
    Case(
        "without a key", "train", ("impressions.parquet", "'user_id'"), examples(lambda t: t.drop("user_id"))
    ),
    Case(
        "key renamed", "train", ("'user_id'", "'userid'"), examples(lambda t: t.rename({"user_id": "userid"}))
    ),
    Case("without a context column", "train", ("'position'",), examples(lambda t: t.drop("position"))),
    Case("without times", "train", ("'event_timestamp'",), examples(lambda t: t.drop("event_timestamp"))),
    Case(
        "times are numbers",
        "train",
        ("event_timestamp",),
        examples(lambda t: t.with_columns(event_timestamp=pl.lit(3))),
    ),
    Case(
        "times are no times",
        "train",
        ("impressions.parquet", "noon"),
        examples(lambda t: t.with_columns(event_timestamp=pl.lit("noon"))),
    ),
    Case(
        "a row without time",
        "train",
        ("event_timestamp", "1 of"),
        examples(
            lambda t: t.with_columns(
                event_timestamp=pl.when(pl.int_range(pl.len()) != 9).then("event_timestamp")
            )
        ),
    ),
    Case("without a label", "train", ("'clicked'",), examples(lambda t: t.drop("clicked"))),
    Case("unknown label", "train", ("'clicke'", "'clicked'"), keys(tasks__ctr__label="clicke")),
    Case(
        "a label of text",
        "train",
        ("ctr", "'clicked'", "number"),
        examples(lambda t: t.with_columns(clicked=pl.lit("yes"))),
    ),
    Case(
        "a label of no class",
        "train",
        ("dwell", "'dwell_seconds'", "none of its classes"),
        keys(tasks__dwell={"label": "dwell_seconds", "kind": "ordinal", "classes": [1, 2, 3]}),
    ),
    Case(
        "label 2", "train", ("ctr", "'clicked'", "2"), examples(lambda t: t.with_columns(clicked=pl.lit(2)))
    ),
    Case(
        "no positive label",
        "train",
        ("ctr", "'clicked'", "positive"),
        examples(lambda t: t.with_columns(clicked=pl.lit(0))),
    ),
    Case(
        "no label at all",
        "train",
        ("ctr", "'clicked'"),
        examples(lambda t: t.with_columns(clicked=pl.lit(None, pl.Int64))),
    ),
    Case(
        "infinite label",
        "train",
        ("dwell", "infinite"),
        examples(lambda t: t.with_columns(dwell_seconds=pl.lit(float("inf")))),
    ),
    Case(
        "negative dwell",
        "train",
        ("dwell", "negative"),
        examples(lambda t: t.with_columns(dwell_seconds=pl.lit(-1.0))),
    ),
    Case(
        "no training rows",
        "train",
        ("split.valid", "training"),
        keys(split={"valid": "2020-01-01", "test": "2027-01-01"}),
    ),
    Case(
        "no validation rows",
        "train",
        ("split.valid", "validation"),
        keys(split={"valid": "2027-01-01", "test": "2027-02-01"}),
    ),
    Case(
        "split before the data",
        "train",
        ("impressions.parquet", "2020-02-01", "no rows"),
        keys(split={"valid": "2020-01-01", "test": "2020-02-01"}),
    ),
    Case("SQL that deletes", "train", ("one SELECT",), keys(examples=f"DELETE FROM '{IMPRESSIONS}'")),
    Case("SQL that copies", "train", ("one SELECT",), keys(examples=f"COPY ({SELECT}) TO 'copy.parquet'")),
    Case("two statements", "train", ("one SELECT",), keys(examples=f"{SELECT}; {SELECT}")),
    Case("broken SQL", "train", ("SELEC",), keys(examples=f"SELEC * FROM '{IMPRESSIONS}'")),
    Case("unknown table in SQL", "train", ("impresions",), keys(examples="SELECT * FROM impresions")),
    Case(
        "unknown column in SQL",
        "train",
        ("userid",),
        keys(examples=f"SELECT userid FROM '{IMPRESSIONS}'"),
    ),
    Case(
        "duplicate columns",
        "train",
        ("user_id",),
        keys(examples=f"SELECT *, 1 AS user_id FROM '{IMPRESSIONS}'", fit__epochs=1),
    ),
    Case(
        "SQL fails on a row",
        "train",
        ("app",),
        keys(examples=f"SELECT * REPLACE (CAST('app' AS INTEGER) AS hour) FROM '{IMPRESSIONS}'"),
    ),
)
