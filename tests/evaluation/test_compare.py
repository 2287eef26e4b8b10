"""Two runs on the same rows: the numbers of each, their difference, and whether it is more than chance."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from harness import mtlrank, set_keys
from safetensors.torch import load_file, save_file

import mtl_rank as mr
from mtl_rank.errors import ConfigError
from mtl_rank.evaluation.compare import Comparison
from mtl_rank.runs import Run, find_run, write_json


def copied(run: Run, name: str, noise: float = 0.0) -> Run:
    """The run under another name, its weights changed at random."""
    other = Run(shutil.copytree(run.folder, run.folder.with_name(name)))
    write_json(other.folder / "run.json", {**run.info(), "id": name})
    weights = load_file(other.weights)
    generator = torch.Generator().manual_seed(3)
    for key, values in weights.items():
        if values.is_floating_point():
            values += noise * values.std(correction=0) * torch.randn(values.shape, generator=generator)
            weights[key] = values
    save_file(weights, other.weights)
    return other


@pytest.fixture(scope="module")
def runs(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run, Run, Run]:
    """A project with a run, its copy, and a copy with worse weights."""
    project = shutil.copytree(trained, tmp_path_factory.mktemp("compare") / "shop")
    run = find_run(project)
    return project, run, copied(run, "20260101-same"), copied(run, "20260102-worse", noise=3.0)


def test_values_are_those_of_evaluate_and_differences_are_theirs(runs) -> None:
    project, run, same, worse = runs
    found = mr.compare(project, [run.id, same.id, worse.id], draws=200)
    assert found.runs == (run.id, same.id, worse.id)
    stored = run.metrics()["test"]["tasks"]
    changed = {numbers.name: numbers for numbers in mr.evaluate(project, worse.id).tasks}
    for row in found.metrics:
        assert row.values[0] == row.values[1] == pytest.approx(stored[row.output][row.metric], abs=1e-12)
        assert row.values[2] == pytest.approx(getattr(changed[row.output], row.metric), abs=1e-12)
        equal, worse_by = row.differences
        assert (equal.value, equal.low, equal.high, equal.p_value) == (0, 0, 0, 1)
        assert row.verdict(0) in ("could be chance", "")
        assert worse_by.value == row.values[2] - row.values[0]
        assert worse_by.low <= worse_by.high
    assert verdicts(found, 1)["ctr", "ne"] == "worse"


def test_the_other_order_turns_the_sign(runs) -> None:
    project, run, _, worse = runs
    there, back = (mr.compare(project, pair, draws=100) for pair in ((run.id, worse.id), (worse.id, run.id)))
    for one, other in zip(there.metrics, back.metrics, strict=True):
        (a,), (b,) = one.differences, other.differences
        assert np.allclose([a.value, a.low, a.high], [-b.value, -b.high, -b.low], atol=1e-12)
        assert a.p_value == b.p_value
    assert verdicts(back, 0)["ctr", "ne"] == "better"


def verdicts(found: Comparison, i: int) -> dict[tuple[str, str], str]:
    return {(row.output, row.metric): row.verdict(i) for row in found.metrics}


def test_the_command_prints_what_differs_and_leaves_a_page(runs) -> None:
    project, run, _, worse = runs
    set_keys_of_run(worse, {"fit.lr": 0.5})
    outcome = mtlrank("compare", run.id, worse.id, "--draws", "100", cwd=project)
    assert outcome.code == 0, outcome.err
    assert "fit.lr" in outcome.out
    assert "worse" in outcome.out
    page = (run.folder / "compare.html").read_text(encoding="utf-8")
    assert "fit.<wbr>lr" in page
    assert worse.id in page
    document = mtlrank("compare", run.id, worse.id, "--draws", "100", "--json", cwd=project).document
    assert document["runs"] == [run.id, worse.id]
    assert {row["output"] for row in document["metrics"]} == {"ctr", "cvr", "dwell", "ctcvr", "ctr_dwell"}


def set_keys_of_run(run: Run, settings: dict[str, object]) -> None:
    """Change the stored configuration of a run."""
    (run.folder / "mtlrank.yaml").write_bytes((run.folder / "config.yaml").read_bytes())
    set_keys(run.folder, settings)
    (run.folder / "mtlrank.yaml").rename(run.folder / "config.yaml")


def test_a_run_that_has_seen_the_window_is_named(runs) -> None:
    project, run, _, worse = runs
    set_keys_of_run(worse, {"split.valid": "2026-03-29", "split.test": "2026-03-30"})
    found = mr.compare(project, [run.id, worse.id], draws=10)
    (note,) = found.notes
    assert worse.id in note
    assert "2026-03-29" in note


def test_what_is_undefined_is_given_its_reason(runs) -> None:
    project, run, same, _ = runs
    path = project / "data/impressions.parquet"

    def notes(select: str) -> dict[tuple[str, str], str | None]:
        found = mr.compare(project, [run.id, same.id], draws=20, examples=f"{select} LIMIT 300")
        return {(row.output, row.metric): row.note for row in found.metrics}

    unlabelled = notes(f"SELECT * REPLACE (NULL::INT AS clicked) FROM '{path}'")
    assert set(unlabelled.values()) == {"no row has this label"}
    clicks = notes(f"SELECT * FROM '{path}' WHERE clicked = 1")
    assert clicks["ctr", "auc"] == clicks["ctr", "gauc"] == clicks["ctr", "ne"] == "every label is 1"
    few = f"SELECT * FROM '{path}' WHERE user_id IN (SELECT min(user_id) FROM '{path}' WHERE clicked = 0)"
    alone = notes(few)
    assert alone["ctr", "calibration"] in (
        "no interval of 1 user, at least 10 are wanted",
        "no label is above 0",
    )
    every = notes(f"SELECT * FROM '{path}'")
    assert every["ctr", "auc"] is None

    outcome = mtlrank(
        "compare", run.id, same.id, "--draws", "20", "--examples", f"{few} LIMIT 1", cwd=project
    )
    assert "at least 10 are wanted" in outcome.out or "every label is" in outcome.out


def test_what_cannot_be_compared_is_told(runs) -> None:
    project, run, *_ = runs
    for names in ([], [run.id], [run.id, run.id]):
        with pytest.raises(ConfigError, match="two or more different runs"):
            mr.compare(project, names)
    other = copied(run, "20260103-other")
    set_keys_of_run(other, {"tasks.ctr.label": "purchased"})
    # What follows from another label is another thing, whatever it is called.
    with pytest.raises(ConfigError, match=r"no task in common.*ctr of 'clicked'.*; .*ctr of 'purchased'"):
        mr.compare(project, [run.id, other.id])
    assert mtlrank("compare", run.id, "2019", cwd=project).code == 2


def test_runs_are_listed_with_their_numbers(runs) -> None:
    project, run, *_ = runs
    outcome = mtlrank("runs", cwd=project)
    (line,) = [line for line in outcome.out.splitlines() if run.id in line]
    tested = run.metrics()["test"]["tasks"]["ctr"]
    info = run.info()
    for text in (
        *(
            "finished",
            info["model"],
            info["weighting"],
            ",".join(info["tasks"]),
            f"{info['rows']['train']:,}",
        ),
        *(f"ctr {tested['auc']:.4f}", f"ctr {tested['ne']:.4f}", f"{info['fit']['seconds']:.0f} s"),
    ):
        assert text in line
