"""Training: every model under every weighting, what a run leaves behind, and how it ends when it cannot."""

import csv
import json
import math
import pickletools
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import polars as pl
import pytest
from harness import mtlrank, set_keys

import mtl_rank as mr
from mtl_rank.config import load_config
from mtl_rank.errors import DataError, RunError
from mtl_rank.predict import Predictor
from mtl_rank.runs import find_run, list_runs


@pytest.fixture(scope="module")
def shop(applied: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that the tests of this file train in."""
    return shutil.copytree(applied, tmp_path_factory.mktemp("training") / "shop")


@pytest.mark.parametrize("model", ["dnn", "shared_bottom", "mmoe"])
@pytest.mark.parametrize("weighting", ["manual", "loss_scale", "uncertainty"])
def test_every_model_trains_under_every_weighting(shop: Path, model: str, weighting: str) -> None:
    outcome = mtlrank(
        *("train", "--model", model, "--weighting", weighting, "--json"),
        *("--set", "fit.epochs=2", "--set", "fit.batch_size=64"),
        cwd=shop,
    )
    run = outcome.document
    assert (run["status"], run["model"], run["weighting"]) == ("finished", model, weighting)
    assert all(math.isfinite(task["calibration"]) for task in run["metrics"]["test"]["tasks"].values())
    # What a few thousand rows teach about other rows is little; what they teach about themselves is not.
    learned = {numbers.name: numbers for numbers in mr.evaluate(shop, run["id"], split="train").tasks}
    assert learned["ctr"].auc > 0.6
    assert learned["dwell"].spearman > 0.1


def test_a_single_task_trains_alone(shop: Path) -> None:
    run = mr.train(shop, ["ctr"], {"model.name": "dnn", "fit.epochs": 1})
    assert list(run.metrics()["test"]["tasks"]) == ["ctr"]
    assert run.info()["tasks"] == ["ctr"]


def test_manual_lambdas_reach_the_training(shop: Path) -> None:
    outcome = mtlrank(
        *(
            "train",
            "--tasks",
            "ctr,cvr",
            "--weighting",
            "manual",
            "--lambda",
            "ctr=2",
            "--lambda",
            "cvr=0.25",
        ),
        *("--set", "fit.epochs=1", "--json"),
        cwd=shop,
    )
    folder = Path(outcome.document["folder"])
    with (folder / "history.csv").open(newline="") as file:
        steps = [row for row in csv.DictReader(file) if row["lambda/ctr"]]
    assert {(float(row["lambda/ctr"]), float(row["lambda/cvr"])) for row in steps} == {(2, 0.25)}


def test_a_regression_task_is_measured_in_the_unit_of_its_label(trained: Path) -> None:
    dwell = find_run(trained).metrics()["test"]["tasks"]["dwell"]
    clicked = pl.read_parquet(trained / "data/impressions.parquet").filter(
        pl.col("event_timestamp") >= load_config(trained).split.test, pl.col("clicked") == 1
    )["dwell_seconds"]
    assert dwell["rows"] == len(clicked)
    assert dwell["mean_label"] == pytest.approx(clicked.mean())
    assert dwell["calibration"] == pytest.approx(dwell["mean_prediction"] / dwell["mean_label"])
    # Seconds, not their logarithm; no better than guessing the mean would be about the deviation.
    assert 0 < dwell["rmse"] < 1.5 * clicked.std()
    assert {"auc", "ne", "log_loss"}.isdisjoint(dwell)


# The disassembler decodes whatever it is given before it finds that it is no pickle.
@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")
def test_a_run_is_what_the_design_promises_and_holds_no_pickle(trained: Path) -> None:
    run = find_run(trained)
    names = {path.name for path in run.folder.iterdir()}
    locks = {"lock", "measured.lock"}
    assert names - locks == {
        *("run.json", "config.yaml", "features.json", "metrics.json", "evaluation.json"),
        *("history.csv", "model.safetensors", "encoder", "checks.json", "report.html"),
    }
    files = [path for path in run.folder.rglob("*") if path.is_file() and path.name not in locks]
    assert {path.suffix for path in files} <= {".json", ".yaml", ".csv", ".safetensors", ".parquet", ".html"}
    for path in files:
        assert not zipfile.is_zipfile(path)
        with pytest.raises((ValueError, UnicodeDecodeError)):
            list(pickletools.genops(path.read_bytes()))


def test_a_run_says_what_it_was(trained: Path) -> None:
    run = find_run(trained)
    info = run.info()
    assert (info["status"], info["seed"], info["feature_service"]) == ("finished", 7, "ranking_v1")
    assert info["tasks"] == ["ctr", "cvr", "dwell"]
    assert info["rows"]["train"] > info["rows"]["valid"] > 0
    assert {"python", "torch", "feast", "duckdb", "mtl-rank"} <= set(info["versions"])
    assert run.config() == load_config(trained, {"fit.epochs": 2})


def test_defaults_are_written_out_so_that_later_versions_cannot_change_a_run(trained: Path) -> None:
    written = (find_run(trained).folder / "config.yaml").read_text()
    for key in ("dropout", "embedding_lr", "patience", "min_count"):
        assert f"{key}:" in written


@pytest.mark.parametrize("kept", [0, 7, 0.5, 0.99])
def test_truncated_weights_are_a_run_error(trained: Path, tmp_path: Path, kept: float) -> None:
    project = shutil.copytree(trained, tmp_path / "shop")
    run = find_run(project)
    whole = run.weights.read_bytes()
    run.weights.write_bytes(whole[: int(kept if kept >= 1 else kept * len(whole))])
    with pytest.raises(RunError, match=r"model\.safetensors"):
        Predictor.load(run)


def test_weights_of_another_model_are_a_run_error(trained: Path, tmp_path: Path) -> None:
    project = shutil.copytree(trained, tmp_path / "shop")
    run = find_run(project)
    config = run.folder / "config.yaml"
    config.write_text(config.read_text().replace("experts: 4", "experts: 5"))
    with pytest.raises(RunError, match=r"model\.safetensors"):
        Predictor.load(run)


def test_a_failed_training_says_failed_and_cannot_be_used(project: Path) -> None:
    examples = project / "data/impressions.parquet"
    pl.read_parquet(examples).with_columns(clicked=pl.lit(2)).write_parquet(examples)
    with pytest.raises(DataError):
        mr.train(project)
    (run,) = list_runs(project)
    assert run.info()["status"] == "failed"
    with pytest.raises(RunError, match="failed"):
        mr.evaluate(project, run.id)


def test_a_training_without_test_rows_finishes_and_says_so(project: Path) -> None:
    set_keys(project, {"split": {"valid": "2026-03-25", "test": "2027-01-01"}, "fit.epochs": 1})
    outcome = mtlrank("train", "--json", cwd=project)
    assert outcome.code == 0
    assert "test" not in outcome.document["metrics"]
    assert "not evaluated" in outcome.err


def test_control_c_leaves_an_interrupted_run_and_no_traceback(project: Path) -> None:
    set_keys(project, {"fit.epochs": 100_000, "fit.patience": 100_000})
    with subprocess.Popen(
        [sys.executable, "-c", "from mtlrank_cli.main import main; main()", "train", "--tasks", "ctr"],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        said = _read_until(process, "epoch 1:")
        process.send_signal(signal.SIGINT)
        out, rest = process.communicate(timeout=300)
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in said + rest
    assert rest.strip().endswith("mtlrank: stopped")
    (record,) = (project / "runs").glob("*/run.json")
    assert json.loads(record.read_text())["status"] == "interrupted"


def _read_until(process: subprocess.Popen[str], sign: str) -> str:
    assert process.stderr is not None
    said, deadline = "", time.monotonic() + 120
    while sign not in said:
        line = process.stderr.readline()
        assert line, f"ended before it said {sign!r}: {said}"
        assert time.monotonic() < deadline, said
        said += line
    return said
