"""report.html: complete, self-contained, and never in the way of a training."""

import json
import re
import shutil
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from harness import mtlrank

import mtl_rank as mr
from mtl_rank.errors import RunError
from mtl_rank.pages import element, shown, table
from mtl_rank.pages.vega import vega_script
from mtl_rank.runs import Run, find_run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    return find_run(shutil.copytree(trained, tmp_path / "shop"))


def page_of(run: Run) -> str:
    """The page without the script that draws."""
    return run.report.read_text(encoding="utf-8").replace(vega_script(), "")


def text_of(page: str) -> str:
    return unescape(re.sub(r"<[^>]*>", " ", re.sub(r"<(script|style).*?</\1>", "", page, flags=re.DOTALL)))


def charts_of(page: str) -> dict[str, Any]:
    (specs,) = re.findall(r'<script type="application/json" id="charts">(.*)</script>', page)
    document: dict[str, Any] = json.loads(specs)
    return document


def test_a_training_leaves_its_report_with_every_number_of_the_head(trained: Path) -> None:
    run = find_run(trained)
    text = text_of(page_of(run))
    for name, numbers in run.metrics()["test"]["tasks"].items():
        keys = (
            ("auc", "attainable_auc", "ne", "gauc", "ece") if numbers["kind"] == "binary" else ("rmse", "mae")
        )
        for key in keys:
            assert shown(numbers[key]) in text, (name, key)
        low, high = numbers["intervals"]["auc" if numbers["kind"] == "binary" else "rmse"]
        assert f"{shown(low)} to {shown(high)}" in text
    for model in run.metrics()["baselines"]["test"]:
        assert model in text
    info = run.info()
    for fact in (run.id, info["feature_service"], info["versions"]["torch"], shown(info["rows"]["train"])):
        assert fact in text
    assert run.config().to_yaml() in unescape(page_of(run))


def test_everything_that_is_asked_for_is_drawn(trained: Path) -> None:
    page = page_of(find_run(trained))
    titles = re.findall(r"<figure[^>]*><h3>(.*?)</h3>", page)
    for title in (
        "Beside simpler models",
        "ROC",
        "Precision and recall",
        "Scores by label",
        "GAUC by activity",
    ):
        # ctr, cvr and their product.
        assert titles.count(title) == 3, title
    assert titles.count("Is the prediction right?") == 5
    assert titles.count("What it looks at") == 3
    for title in (
        "Lambda",
        "Share of the total loss",
        "Normalised loss",
        "Use of experts",
        "What moved most",
    ):
        assert title in titles
    assert len(charts_of(page)) == len(titles)
    assert "For whom is it worse?" in page


def test_the_page_refers_to_nothing_outside(trained: Path) -> None:
    page = page_of(find_run(trained))
    assert vega_script() in find_run(trained).report.read_text(encoding="utf-8")
    assert not re.search(r"(src|@import|url\(|fetch\()\s*=?", page.replace("schema", ""))
    assert set(re.findall(r'href="(.)', page)) == {"#"}
    # The name of the grammar of charts, which is not fetched.
    assert {
        url for url in re.findall(r"https?://[^\"\s]*", page) if "vega.github.io/schema" not in url
    } == set()


def test_loud_flags_stand_above_the_numbers(run: Run) -> None:
    flag = {"kind": "leak", "where": "x", "text": "x: alone it tells ctr with AUC of 0.999"}
    run.write_checks({**run.checks(), "flags": [flag]})
    mr.report(run.project)
    text = text_of(page_of(run))
    assert 0 < text.index(flag["text"]) < text.index("95 %")


def test_a_report_shows_what_was_measured_since(run: Run) -> None:
    assert "user_profile__device: " not in text_of(page_of(run))
    mr.evaluate(run.project, by=["user_profile__device"])
    outcome = mtlrank("report", "--json", cwd=run.project)
    assert outcome.document == {"report": str(run.report)}
    assert "user_profile__device: " in text_of(page_of(run))


def test_a_run_without_measures_or_checks_has_a_page_too(run: Run) -> None:
    for name in ("metrics.json", "evaluation.json", "checks.json", "history.csv"):
        (run.folder / name).unlink()
    mr.report(run.project)
    page = page_of(run)
    assert "was not measured" in page
    assert charts_of(page) == {}


def test_numbers_that_are_none_are_left_out_of_the_charts(run: Run) -> None:
    path = run.folder / "history.csv"
    header, *rows = path.read_text().splitlines()
    lambdas = [i for i, name in enumerate(header.split(",")) if name.startswith("lambda/")]
    broken = rows[0].split(",")
    for i in lambdas:
        broken[i] = "nan"
    path.write_text("\n".join([header, ",".join(broken), *rows[1:]]) + "\n")
    mr.report(run.project)
    assert "NaN" not in json.dumps(charts_of(page_of(run)))


def test_no_name_or_value_becomes_markup(run: Run) -> None:
    odd = '</script><b onload="x">&'
    metrics = run.metrics()
    for slices in metrics["test"]["slices"].values():
        slices[0] |= {"value": odd, "note": None}
    run.write_metrics(metrics)
    details = run.details()
    details["test"]["importance"] = [{"input": odd, "task": "ctr", "loss_rise": 0.1, "auc_drop": 0.1}]
    run.write_details(details)
    mr.report(run.project)
    page = page_of(run)
    assert odd not in page
    assert odd in text_of(page)
    assert any(odd in json.dumps(spec).replace('\\"', '"') for spec in charts_of(page).values())
    assert element("p", odd) == "<p>&lt;/script&gt;&lt;b onload=&quot;x&quot;&gt;&amp;</p>"
    assert odd not in table([odd], [[odd]])


def test_numbers_are_shown_as_people_read_them() -> None:
    values = {
        0.12345678: "0.1235",
        -0.5: "-0.5000",
        22.98831: "22.99",
        1234567.8: "1,234,567.80",
        12_345: "12,345",
    }
    assert {value: shown(value) for value in values} == values
    assert shown(None) == "–"


def test_a_damaged_run_is_told(run: Run) -> None:
    (run.folder / "metrics.json").write_text("{")
    with pytest.raises(RunError, match=r"metrics\.json cannot be read"):
        mr.report(run.project)


class Said:
    """Keeps what a training says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def stage(self, name: str, total: int | None) -> None: ...

    def advance(self, done: int, note: str = "") -> None: ...

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_a_failing_report_is_a_warning_and_the_training_stays_finished(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(run: Run) -> Path:
        raise ValueError("no chart today")

    monkeypatch.setattr("mtl_rank.evaluation.report.write_report", broken)
    said = Said()
    found = mr.train(
        run.project, tasks=["ctr"], settings={"fit.epochs": 1, "evaluation.baselines": []}, reporter=said
    )
    assert found.status() == "finished"
    assert not found.report.exists()
    (warning,) = [line for line in said.lines if "report" in line]
    assert "ValueError: no chart today" in warning
    assert f"mtlrank report {found.id}" in warning


def test_a_run_without_simpler_models_has_no_chart_beside_them(run: Run) -> None:
    metrics = run.metrics()
    assert "Beside simpler models" in page_of(run)
    run.write_metrics({name: one for name, one in metrics.items() if name != "baselines"})
    mr.report(run.project)
    assert "Beside simpler models" not in page_of(run)


def test_the_report_has_what_was_measured_since(run: Run) -> None:
    assert "Measured since" not in page_of(run)
    mr.evaluate(run.project, split="valid", draws=0)
    rows = f"SELECT * FROM '{run.project}/data/impressions.parquet' LIMIT 700"
    mr.evaluate(run.project, examples=rows, draws=50)
    mr.report(run.project)
    text = text_of(page_of(run))
    since = text[text.index("Measured since") :]
    for window in ("valid", "examples"):
        measured = run.metrics()[window]
        assert f"{measured['rows']:,} rows" in since
        for name, numbers in measured["tasks"].items():
            for key in (
                ("auc", "ne", "calibration") if numbers["kind"] == "binary" else ("rmse", "calibration")
            ):
                assert shown(numbers[key]) in since, (window, name, key)
    # The head is still about the test window.
    assert f"measured on the {run.metrics()['test']['rows']:,} rows of the test window" in text


def test_a_page_that_cannot_be_written_leaves_no_part_of_it(run: Run) -> None:
    run.report.unlink()
    run.report.mkdir()
    outcome = mtlrank("report", cwd=run.project)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert f"{run.report} cannot be written" in outcome.err
    assert list(run.folder.glob("*.partial")) == []
