"""mtlrank tune: what it finds can be trained, a killed study ends like one never killed, processes share the work."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from harness import mtlrank, set_keys
from killed_tunings import SETTINGS

import mtl_rank as mr
from mtl_rank.runs import list_runs

TRIALS = 3


def killed(project: Path, kills: int, seed: int = 0, within: float = 0.0) -> tuple[int, float]:
    """Kills, and CPU seconds of the last attempt, of a study that is killed up to `kills` times."""
    script = Path(__file__).with_name("killed_tunings.py")
    done = subprocess.run(
        [sys.executable, script, project, str(kills), str(seed), str(TRIALS), str(within)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    count, seconds = done.stdout.split()
    return int(count), float(seconds)


def study_of(project: Path) -> Path:
    (folder,) = (project / "tune").iterdir()
    return folder


def result_of(project: Path) -> dict:
    return json.loads((study_of(project) / "result.json").read_text())


@pytest.fixture(scope="module")
def tuned(applied: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A project with one study that nobody killed, and the CPU seconds it took."""
    project = shutil.copytree(applied, tmp_path_factory.mktemp("tuned") / "shop")
    _, seconds = killed(project, 0)
    return project, seconds


def test_a_study_says_what_each_task_gains_and_leaves_no_weights(tuned: tuple[Path, float]) -> None:
    found = result_of(tuned[0])
    assert [point["trial"] for point in found["points"]] == [0, 1, 2]
    assert found["points"][0]["lambdas"] == {"ctr": 1, "cvr": 1}
    for point in found["points"]:
        for task in ("ctr", "cvr"):
            assert point["against_alone"][task] == pytest.approx(
                point["losses"][task] / found["alone"][task] - 1
            )
    losses = [tuple(point["losses"].values()) for point in found["points"]]
    for point, own in zip(found["points"], losses, strict=True):
        beaten = any(a <= own[0] and b <= own[1] and (a, b) != own for a, b in losses)
        assert point["on_front"] == (not beaten)
    assert not list(study_of(tuned[0]).rglob("*.safetensors"))
    assert not list(study_of(tuned[0]).rglob("*.ckpt"))
    assert list_runs(tuned[0]) == []


def test_the_command_trains_the_very_numbers_of_the_point(tuned: tuple[Path, float]) -> None:
    found = result_of(tuned[0])
    best = next(point for point in found["points"] if point["trial"] == found["best"])
    assert best["command"] == found["command"]
    words = shlex.split(best["command"])
    run = mtlrank(*words[1:], "--json", cwd=tuned[0]).document
    for task in ("ctr", "cvr"):
        assert run["metrics"]["valid"][f"valid/{task}/ne"] == best["losses"][task]
        assert run["metrics"]["valid"][f"valid/{task}/auc"] == best["auc"][task]


def test_alone_is_a_training_of_that_task_alone(tuned: tuple[Path, float]) -> None:
    """The same network, every row of the task, the other one with lambda 0; stopped by its own loss."""
    expected = mr.train(
        tuned[0],
        ["ctr", "cvr"],
        {
            **SETTINGS,
            "weighting.method": "manual",
            "weighting.lambdas": {"ctr": 0, "cvr": 1},
            "fit.monitor": "valid/cvr/ne",
        },
    )
    assert result_of(tuned[0])["alone"]["cvr"] == expected.metrics()["valid"]["valid/cvr/ne"]


@pytest.mark.parametrize(
    ("settings", "plain"),
    [
        ({"model.name": "esmm"}, {"model.name": "dnn"}),
        (
            {"model.heads": "esmm", "weighting.schedule": {"cvr": [[0, 0], [1, 1]]}},
            {"model.heads": "towers"},
        ),
        ({"tasks.cvr.inverse_propensity": 0.001}, {}),
    ],
    ids=str,
)
def test_alone_leans_on_no_task_that_learns_nothing(project: Path, settings: dict, plain: dict) -> None:
    """The conditional rate among clicked rows, not what a product with an untrained parent makes of it."""
    short = {"fit.epochs": 1, "fit.precision": "fp32"}
    found = mr.tune(project, ["ctr", "cvr"], trials=1, settings={**short, **settings})
    alone = {
        "weighting.method": "manual",
        "weighting.lambdas": {"ctr": 0, "cvr": 1},
        "fit.monitor": "valid/cvr/ne",
    }
    expected = mr.train(project, ["ctr", "cvr"], {**short, **plain, **alone})
    assert found.alone["cvr"] == expected.metrics()["valid"]["valid/cvr/ne"]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_study_killed_again_and_again_equals_one_never_killed(
    project: Path, tuned: tuple[Path, float], seed: int
) -> None:
    kills, _ = killed(project, 8, seed, tuned[1] / 3)
    assert kills >= 2, "an attempt takes a third of the time at most: the test proves nothing with fewer"
    assert result_of(project) == result_of(tuned[0])


def test_processes_share_a_study(project: Path, tuned: tuple[Path, float]) -> None:
    script = Path(__file__).with_name("killed_tunings.py")
    words = [sys.executable, script, project, "0", "0", str(TRIALS), "0"]
    running = [subprocess.Popen(words, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(timeout=600) for process in running] == [0, 0]
    assert len(list((study_of(project) / "trials").iterdir())) == TRIALS
    assert len(result_of(project)["points"]) == TRIALS
    outcome = mtlrank(*ARGUMENTS, "--json", cwd=project)
    assert outcome.code == 0, outcome.err
    found = outcome.document
    assert len(found["points"]) == TRIALS
    assert found["alone"] == result_of(tuned[0])["alone"]


ARGUMENTS = (
    *("tune", "--tasks", "ctr,cvr", "--trials", str(TRIALS)),
    *(word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")),
)


def test_asked_again_it_trains_nothing_and_prefers_what_it_is_told(tuned: tuple[Path, float]) -> None:
    shown = mtlrank(*ARGUMENTS, "--prefer", "ctr=1", "--prefer", "cvr=0", cwd=tuned[0])
    assert shown.code == 0, shown.err
    assert "epoch" not in shown.err
    best = min(result_of(tuned[0])["points"], key=lambda point: point["losses"]["ctr"])
    assert f"best for ctr 1, cvr 0: trial {best['trial']}, trained by\n  {best['command']}" in shown.out
    assert f"{best['trial']} *" in shown.out
    page = Path(shown.out.split("page: ")[1].strip())
    assert best["command"] in page.read_text().replace("&#x27;", "'")


def test_a_trial_that_fails_is_told_and_the_others_go_on(project: Path) -> None:
    outcome = mtlrank(
        *(
            "tune",
            "--tasks",
            "ctr",
            "--trials",
            "4",
            "--search",
            "fit.lr=1e30|0.001",
            "--set",
            "fit.epochs=1",
        ),
        *("--set", "fit.precision=fp32", "--json"),
        cwd=project,
    )
    assert outcome.code == 0, outcome.err
    found = outcome.document
    assert {point["settings"]["fit.lr"] for point in found["points"]} == {"0.001"}
    assert found["failed"]
    assert all("diverged" in reason for reason in found["failed"].values())
    assert len(found["points"]) + len(found["failed"]) == 4


def test_changed_examples_are_not_mixed_into_a_study(project: Path) -> None:
    arguments = ("tune", "--tasks", "ctr,cvr", "--trials", "1", "--set", "fit.epochs=1")
    assert mtlrank(*arguments, cwd=project).code == 0
    path = project / "data/impressions.parquet"
    pl.read_parquet(path).slice(1).write_parquet(path)
    outcome = mtlrank(*arguments, cwd=project)
    assert outcome.code == 2
    assert "have changed since it began" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--tasks ctr", ("one task has no lambda", "--search")),
        ("--tasks ctr,cvrr", ("--tasks", "'cvr'")),
        ("--trials 0", ("--trials", "at least 1")),
        ("--prefer ctrr=1", ("--prefer", "'ctr'")),
        ("--search fit.lr=1", ("--search fit.lr=1", "several values")),
        ("--search model.expert=2|4", ("'model.expert'", "'experts'")),
        ("--search model.dropout=0.1..1.5", ("model.dropout", "1.5")),
        ("--search model.name=mmoe|mmoee", ("model.name", "'mmoee'")),
        ("--set fit.devices=2", ("fit.devices", "several times")),
        ("--set model.name=mmoee", ("model.name", "'mmoe'")),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(
    tuned: tuple[Path, float], arguments: str, words: tuple
) -> None:
    outcome = mtlrank("tune", *arguments.split(), cwd=tuned[0])
    assert (outcome.code, outcome.out) == (2, "")
    for word in words:
        assert word in outcome.err
    assert "Traceback" not in outcome.err
    assert "epoch" not in outcome.err


def test_tune_starts_from_the_lambdas_of_the_project(project: Path) -> None:
    set_keys(project, {"weighting": {"method": "manual", "lambdas": {"cvr": 0.25}}, "fit.epochs": 1})
    found = mtlrank("tune", "--tasks", "ctr,cvr", "--trials", "2", "--json", cwd=project).document
    assert [point["lambdas"] for point in found["points"]] == [{"ctr": 1, "cvr": 1}, {"ctr": 1.6, "cvr": 0.4}]
