"""The command line itself: help at once, one JSON document, projects found, awkward paths."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import polars as pl
import pytest
from harness import mtlrank, set_keys

from mtl_rank.runs import find_run, list_runs

COMMANDS = [
    "init",
    "simulate",
    "features",
    "models",
    "train",
    "tune",
    "evaluate",
    "inspect",
    "score",
    "jobs",
    "runs",
    "cache",
]
ASK_FOR_HELP = """
import contextlib, io, json, sys
from mtlrank_cli.main import main

shown = {}
for command in sys.argv[1:]:
    sys.argv = ["mtlrank", *command.split(), "--help"]
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main()
    shown[command] = out.getvalue()
heavy = [name for name in ("torch", "feast", "lightning", "polars", "duckdb", "pandas") if name in sys.modules]
print(json.dumps({"shown": shown, "heavy": heavy}))
"""


@pytest.fixture(scope="module")
def helped() -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", ASK_FOR_HELP, "", *COMMANDS], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_help_imports_nothing_heavy(helped: dict) -> None:
    assert helped["heavy"] == []


def test_help_names_every_command(helped: dict) -> None:
    assert [name for name in COMMANDS if name not in helped["shown"][""]] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_has_an_example(helped: dict, command: str) -> None:
    shown = helped["shown"][command]
    assert "Usage: mtlrank " + command in " ".join(shown.split())
    assert f"Example: mtlrank {command}" in " ".join(shown.split())


def test_a_mistake_ends_a_real_process_like_any_other(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("mtlrank")
    done = subprocess.run([script, "runs"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("mtlrank: no mtlrank.yaml in ")
    assert len(done.stderr.splitlines()) == 1


def test_a_folder_that_cannot_be_written_is_told_in_a_line(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    mounted = ["mount", "--bind", trained, tmp_path / "shop"]
    if os.geteuid() or subprocess.run(mounted, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", tmp_path / "shop"], check=True)
        outcome = mtlrank("evaluate", cwd=tmp_path / "shop")
    finally:
        subprocess.run(["umount", "--lazy", tmp_path / "shop"], check=True)
    assert outcome.code == 2
    assert outcome.err.strip().splitlines()[-1].endswith("Read-only file system")


def test_a_reader_that_goes_away_is_no_bug(trained: Path) -> None:
    script = f"{sys.executable} -c 'from mtlrank_cli.main import main; main()' runs --json | true"
    done = subprocess.run(script, shell=True, cwd=trained, capture_output=True, text=True, check=False)
    assert done.stderr == ""


@pytest.mark.parametrize(
    "command",
    [
        "features --json",
        "evaluate --json",
        "runs --json",
        "cache --json",
        "score --candidates data/candidates.parquet --to {out}/scores.duckdb --json",
        "simulate --rows 1000 --out {out}/data --json",
    ],
    ids=lambda command: command.split()[0],
)
def test_json_is_one_document_and_nothing_else(trained: Path, tmp_path: Path, command: str) -> None:
    project = shutil.copytree(trained, tmp_path / "shop")
    outcome = mtlrank(*command.format(out=tmp_path).split(), cwd=project)
    assert outcome.code == 0
    assert outcome.document
    assert "NaN" not in outcome.out


def test_features_lists_every_input_with_its_role(trained: Path) -> None:
    inputs = {spec["name"]: spec for spec in mtlrank("features", "--json", cwd=trained).document["inputs"]}
    roles = {name: spec["role"] for name, spec in inputs.items()}
    assert roles["item_id"] == "categorical"
    assert roles["user_stats__clicks"] == "dense"
    assert roles["user_history__clicked_items"] == "sequence"
    assert roles["item_profile__tags"] == "bag"
    assert roles["price_match__price_gap"] == "dense"
    assert roles["position"] == "categorical"
    shown = mtlrank("features", cwd=trained).out
    assert [name for name in roles if name not in shown] == []


def test_runs_are_listed_with_what_became_of_them(trained: Path) -> None:
    (run,) = mtlrank("runs", "--json", cwd=trained).document
    shown = mtlrank("runs", cwd=trained).out
    assert run["id"] in shown
    assert f"ctr {run['metrics']['test']['tasks']['ctr']['auc']:.4f}" in shown


def test_the_project_is_found_above_and_by_option(trained: Path, tmp_path: Path) -> None:
    here = mtlrank("runs", "--json", cwd=trained).document
    assert mtlrank("runs", "--json", cwd=trained / "feature_repo" / "data").document == here
    assert mtlrank("--project", trained, "runs", "--json", cwd=tmp_path).document == here
    relative = Path("..") / trained.name
    assert mtlrank("-p", relative, "runs", "--json", cwd=trained).document == here


def test_paths_with_spaces_quotes_and_other_letters(applied: Path, tmp_path: Path) -> None:
    project = shutil.copytree(applied, tmp_path / "Anna's Läden 店" / 'mein "shop" [1]')
    trained = mtlrank("-p", project, "train", "--tasks", "ctr,cvr", "--set", "fit.epochs=1", cwd=tmp_path)
    assert trained.code == 0, trained.err
    evaluated = mtlrank("-p", project, "evaluate", "--json", cwd=tmp_path)
    assert evaluated.code == 0, evaluated.err
    candidates = project / "data/candidates.parquet"
    scores = tmp_path / "Anna's Läden 店" / "was man zeigt?.duckdb"
    scored = mtlrank(
        *("-p", project, "score", "--candidates", candidates, "--to", scores),
        cwd=tmp_path,
    )
    assert scored.code == 0, scored.err
    with duckdb.connect(str(scores), read_only=True) as con:
        assert con.execute("SELECT count(*) FROM scores").fetchall() == [
            (pl.read_parquet(candidates, glob=False).height,)
        ]


def test_scores_go_to_where_the_user_is_not_where_the_project_is(trained: Path, tmp_path: Path) -> None:
    outcome = mtlrank(
        *("-p", trained, "score", "--candidates", "data/candidates.parquet", "--to", "here.duckdb"),
        cwd=tmp_path,
    )
    assert outcome.code == 0
    assert (tmp_path / "here.duckdb").is_file()


def test_rows_and_scores_are_looked_for_where_the_user_is_and_then_in_the_project(
    trained: Path, tmp_path: Path
) -> None:
    """What `score --to` wrote here, `evaluate --scores` finds here."""
    project, here = shutil.copytree(trained, tmp_path / "shop"), tmp_path / "here [1]"
    (here / "data").mkdir(parents=True)
    rows = pl.read_parquet(project / "data/impressions.parquet")
    rows.tail(300).write_parquet(here / "data/impressions.parquet")
    rows.tail(200).write_parquet(project / "data/last.parquet")

    def measured(*options: str) -> int:
        outcome = mtlrank("-p", project, "evaluate", *options, "--draws", "0", "--json", cwd=here)
        assert outcome.code == 0, outcome.err
        return int(outcome.document["rows"])

    assert measured("--examples", "data/impressions.parquet") == 300
    assert measured("--examples", "data/*.parquet") == 300
    assert measured("--examples", "data/last.parquet") == 200

    candidates = here / "data/impressions.parquet"
    scored = mtlrank("-p", project, "score", "--candidates", candidates, "--to", "s.duckdb", cwd=here)
    assert scored.code == 0, scored.err
    # A row has its own score or one of an earlier row with its keys.
    for scores in ("s.duckdb", "s.duckdb:scores"):
        assert measured("--scores", scores, "--examples", "data/impressions.parquet") == 300
    shutil.move(here / "s.duckdb", project / "s.duckdb")
    assert measured("--scores", "s.duckdb", "--examples", "data/last.parquet") == 200

    other = shutil.copytree(find_run(project).folder, project / "runs/20250101-copy")
    compare = ("compare", find_run(project).id, other.name, "--draws", "10", "--json")
    found = mtlrank("-p", project, *compare, "--examples", "data/impressions.parquet", cwd=here)
    assert found.document["rows"] == 300, found.err


def test_init_fills_the_empty_folder_one_is_in(tmp_path: Path) -> None:
    made = mtlrank("init", ".", cwd=tmp_path)
    assert made.code == 0, made.err
    assert {"mtlrank.yaml", "feature_repo", "data", ".gitignore"} <= {
        path.name for path in tmp_path.iterdir()
    }
    assert mtlrank("features", "--json", cwd=tmp_path).document["service"] == "ranking_v1"


def test_relative_paths_in_sql_start_at_the_project(trained: Path, tmp_path: Path) -> None:
    """Another project's file of the same name, in the folder one happens to be in, is not read."""
    (tmp_path / "data").mkdir()
    wanted = pl.read_parquet(trained / "data/candidates.parquet")
    wanted.head(7).write_parquet(tmp_path / "data/candidates.parquet")
    for number, candidates in enumerate(
        [
            "data/candidates.parquet",
            "SELECT * FROM 'data/candid*.parquet'",
        ]
    ):
        outcome = mtlrank(
            *("-p", trained, "score", "--candidates", candidates, "--to", f"{number}.duckdb", "--json"),
            cwd=tmp_path,
        )
        assert outcome.document["rows"] == wanted.height, candidates
    # DuckDB would take the file of the current folder: refused, rather than read by mistake.
    ambiguous = "SELECT * FROM 'data/candidates.parquet'"
    refused = ("score", "--candidates", ambiguous, "--to", "ambiguous.duckdb")
    outcome = mtlrank("-p", trained, *refused, cwd=tmp_path)
    assert outcome.code == 2
    assert "write the absolute path" in outcome.err
    assert not (tmp_path / "ambiguous.duckdb").exists()
    (tmp_path / "data/candidates.parquet").unlink()
    outcome = mtlrank("-p", trained, *refused, "--json", cwd=tmp_path)
    assert outcome.document["rows"] == wanted.height


def test_settings_of_the_command_line_win_and_are_written_down(project: Path) -> None:
    set_keys(project, {"fit.epochs": 3, "model.experts": 4})
    outcome = mtlrank(
        *("train", "--tasks", "ctr", "--set", "fit.epochs=1", "--set", "model.expert_layers=[8, 4]"),
        *("--set", "model.experts=2", "--model", "mmoe"),
        cwd=project,
    )
    assert outcome.code == 0
    (run,) = list_runs(project)
    config = run.config()
    assert (config.fit.epochs, config.model.experts, config.model.expert_layers) == (1, 2, (8, 4))
