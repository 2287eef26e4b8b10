"""Point-in-time retrieval: this offline store, Feast's own DuckDB store and a hand-written ASOF query, side by side.

    python benchmarks/retrieval.py                      all of it, about half an hour
    python benchmarks/retrieval.py --sizes 100k,1m      without the 5M rows
    python benchmarks/retrieval.py --stores ours,hand   without Feast's store

Every run is a process of its own, the contenders take turns, and a hash over all rows must agree. The data are made
from a hash of the row number: three views of 2M, 2M and 5M feature rows on a user, an item and a user's category,
with 10-40 rows per key (sparse) or 100-1000 (dense), 18 features, times to live of 7 days, none and 3 days.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
from retrieval_data import ROWS_PER_KEY, VIEWS, make_histories, make_rows

STORES = ("feast", "ours", "hand")
SIZES = {"100k": 100_000, "1m": 1_000_000, "5m": 5_000_000}
ROUNDS = {100_000: 3, 1_000_000: 2, 5_000_000: 1}
LIMIT = "1GB"


def retrieve_through_feast(
    store: str, folder: Path, rows: Path, stream: bool, settings: dict[str, Any]
) -> Any:
    """Gives the function to be timed: it returns a table, or the number of rows when it streams."""
    import pandas as pd
    from feast import Entity, FeatureView, Field, FileSource, ValueType
    from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig
    from feast.infra.registry.registry import Registry
    from feast.repo_config import RegistryConfig, RepoConfig
    from feast.types import Float64, Int64

    from mtl_rank.features.offline_store import DuckDBAsofOfflineStore, DuckDBAsofOfflineStoreConfig

    views = []
    for each in VIEWS:
        created = "created" if each.created else None
        source = FileSource(
            path=str(folder / f"{each.name}.parquet"), timestamp_field="ts", created_timestamp_column=created
        )
        schema = [Field(name=key, dtype=Int64) for key in each.keys]
        schema += [Field(name=f"f{n}", dtype=Float64) for n in range(each.features)]
        entities = [Entity(name=key, join_keys=[key], value_type=ValueType.INT64) for key in each.keys]
        views.append(
            FeatureView(name=each.name, entities=entities, schema=schema, source=source, ttl=each.ttl)
        )
    offline_store, settings_class = {
        "feast": (DuckDBOfflineStore, DuckDBOfflineStoreConfig),
        "ours": (DuckDBAsofOfflineStore, DuckDBAsofOfflineStoreConfig),
    }[store]
    config = RepoConfig(
        project="bench",
        provider="local",
        registry=str(folder / "registry.db"),
        offline_store=settings_class(**settings),
        entity_key_serialization_version=3,
        repo_path=folder,
    )
    registry = Registry("bench", RegistryConfig(path=str(folder / "registry.db")), None)
    frame = str(rows) if stream else pd.read_parquet(rows)

    def run() -> Any:
        job = offline_store.get_historical_features(
            config=config,
            feature_views=views,
            feature_refs=[f"{each.name}:f{n}" for each in VIEWS for n in range(each.features)],
            entity_df=frame,
            registry=registry,
            project="bench",
            full_feature_names=True,
        )
        return sum(batch.num_rows for batch in job.to_arrow_batches()) if stream else job.to_arrow()

    return run


def retrieve_by_hand(folder: Path, rows: Path) -> Callable[[], Any]:
    """What one would write for exactly these data: no ties, no order of rows, no checks."""
    import pandas as pd

    frame = pd.read_parquet(rows)

    def run() -> Any:
        select, joins = ["e.*"], []
        for view in VIEWS:
            on = " AND ".join(f"e.{key} = {view.name}.{key}" for key in view.keys)
            joins.append(
                f"ASOF LEFT JOIN '{folder / view.name}.parquet' AS {view.name} "
                f"ON {on} AND e.event_timestamp >= {view.name}.ts"
            )
            for n in range(view.features):
                value = f"{view.name}.f{n}"
                if view.ttl:
                    fresh = f"e.event_timestamp - {view.name}.ts <= to_days({view.ttl.days})"
                    value = f"CASE WHEN {fresh} THEN {value} END"
                select.append(f"{value} AS {view.name}__f{n}")
        with duckdb.connect() as con:
            con.execute("SET TimeZone = 'UTC'")
            con.register("entity", frame)
            return con.sql(f"SELECT {', '.join(select)} FROM entity AS e {' '.join(joins)}").to_arrow_table()

    return run


def work(arguments: argparse.Namespace) -> None:
    """One run in this process: prints seconds, peak memory and a hash that the order of rows does not change."""
    folder, rows = Path(arguments.folder), Path(arguments.rows)
    settings = json.loads(arguments.settings)
    if arguments.work == "hand":
        run = retrieve_by_hand(folder, rows)
    else:
        run = retrieve_through_feast(arguments.work, folder, rows, arguments.stream, settings)
    start = time.perf_counter()
    result = run()
    seconds = time.perf_counter() - start
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    found: dict[str, Any] = {"seconds": seconds, "gigabytes": gigabytes}
    if arguments.stream:
        found["rows"] = result
    else:
        with duckdb.connect() as con:
            con.register("result", result)
            columns = ", ".join(sorted(result.column_names))
            ((found["rows"], hashed),) = con.sql(
                f"SELECT count(*), sum(hash({columns})::HUGEINT) FROM result"
            ).fetchall()
            found["hash"] = str(hashed)
    print(json.dumps(found))


def measure(store: str, folder: Path, rows: Path, *, stream: bool = False, **settings: Any) -> dict[str, Any]:
    """One run in a process of its own."""
    script = str(Path(__file__).resolve())
    command = [sys.executable, script, "--work", store, "--folder", str(folder), "--rows", str(rows)]
    command += ["--settings", json.dumps(settings), *(["--stream"] if stream else [])]
    # DuckDB in memory, as Feast's store has it, spills to the current folder.
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def compare(folder: Path, kind: str, sizes: list[int], stores: list[str], rounds: int | None) -> None:
    """The table of one kind of history."""
    make_histories(folder, kind, 2)
    for size in sizes:
        rows = folder / "rows.parquet"
        make_rows(rows, kind, size, 2)
        runs: dict[str, list[dict[str, Any]]] = {store: [] for store in stores}
        for _ in range(rounds or ROUNDS[size]):
            for store in stores:
                # Feast's store would need some 70 GB here.
                if not (store == "feast" and kind == "dense" and size > 1_000_000):
                    runs[store].append(measure(store, folder, rows))
        hashes = {run.get("hash", run.get("failed")) for store in stores for run in runs[store]}
        best = {
            store: min(runs[store], key=lambda run: run.get("seconds", 1e9))
            for store in stores
            if runs[store]
        }
        cells = [_cell(best.get(store)) for store in stores]
        print(
            f"| {kind} | {size:,} | {' | '.join(cells)} | {'yes' if len(hashes) == 1 else hashes} |",
            flush=True,
        )


def limited(folder: Path, kind: str, size: int) -> None:
    """One row of the table of runs that may use little memory. The histories are those of `compare`."""
    rows = folder / "rows.parquet"
    make_rows(rows, kind, size, 2)
    run = measure("ours", folder, rows, stream=True, memory_limit=LIMIT)
    print(f"| {kind} | {size:,} | {_cell(run)} | {run.get('rows', 0) == size} |", flush=True)


def curve(folder: Path, kind: str, size: int) -> None:
    """How the time grows with the history, at one number of entity rows."""
    for million in (1, 2, 4):
        make_histories(folder, kind, million)
        rows = folder / "rows.parquet"
        make_rows(rows, kind, size, million)
        run = min((measure("ours", folder, rows) for _ in range(2)), key=lambda run: run.get("seconds", 1e9))
        total = sum(view.share / 2 * million for view in VIEWS)
        print(f"| {kind} | {size:,} | {total:.1f}M | {_cell(run)} |", flush=True)


def _cell(run: dict[str, Any] | None) -> str:
    if run is None:
        return "-"
    return f"{run['seconds']:.1f} s, {run['gigabytes']:.1f} GB" if "seconds" in run else run["failed"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="100k,1m,5m", help="entity rows, of 100k, 1m, 5m")
    parser.add_argument("--stores", default=",".join(STORES), help="of feast, ours, hand")
    parser.add_argument("--rounds", type=int, help="runs of each store, of which the best counts")
    for name in ("--work", "--folder", "--rows", "--settings"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--stream", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments)
        return
    sizes = [SIZES[size] for size in arguments.sizes.lower().split(",")]
    stores = arguments.stores.split(",")
    with tempfile.TemporaryDirectory() as folder:
        print(
            f"| history | entity rows | {' | '.join(stores)} | equal |\n|---|---|{'---|' * len(stores)}---|"
        )
        for kind in ROWS_PER_KEY:
            compare(Path(folder), kind, sizes, stores, arguments.rounds)
        print(f"\nours, as a stream, memory_limit {LIMIT}\n")
        print("| history | entity rows | ours | complete |\n|---|---|---|---|")
        for kind in ROWS_PER_KEY:
            make_histories(Path(folder), kind, 2)
            limited(Path(folder), kind, max(sizes))
        print(
            "\nours, by size of the history\n\n| history | entity rows | feature rows | ours |\n|---|---|---|---|"
        )
        for kind in ROWS_PER_KEY:
            curve(Path(folder), kind, min(max(sizes), 1_000_000))


if __name__ == "__main__":
    main()
