"""The best point for given priorities, and the page that shows the trade-off without a network."""

import json
import re

import pytest
import vl_convert

from mtl_rank.pages.vega import vega_script
from mtl_rank.tuning.front import Point, Tuning, best_for
from mtl_rank.tuning.page import chart, write_page

ALONE = {"ctr": 0.8, "cvr": 0.9}


def point(trial, ctr, cvr, on_front=True, **settings):
    lambdas = {"ctr": 1.0 + trial / 10, "cvr": 1.0 - trial / 10}
    return Point(
        trial, lambdas, settings, {"ctr": ctr, "cvr": cvr}, {"ctr": 0.7}, on_front, f"mtlrank train {trial}"
    )


POINTS = (
    point(0, 0.80, 0.99),
    point(1, 0.84, 0.90),
    point(2, 0.88, 0.88),
    point(3, 0.9, 1.0, on_front=False),
)


def tuning(points=POINTS, best=1):
    return Tuning("ctr-cvr-1", points, {}, ALONE, {"ctr": 2.0, "cvr": 1.0}, best)


def specs(page):
    (text,) = re.findall(r'<script type="application/json" id="charts">(.*)</script>', page)
    return list(json.loads(text).values())


def data(spec):
    return [layer["data"]["values"] for layer in spec["layer"]]


def test_a_point_says_what_each_task_gains_against_training_alone():
    assert POINTS[1].against(ALONE) == {"ctr": pytest.approx(0.05), "cvr": pytest.approx(0)}


@pytest.mark.parametrize(("prefer", "best"), [((1, 1), 1), ((9, 1), 0), ((0, 1), 2), ((1, 0), 0)])
def test_priorities_choose_the_point(prefer, best):
    """Sums of weighted changes: (0, .1), (.05, 0), (.1, -.022)."""
    assert best_for(POINTS, ALONE, dict(zip(ALONE, prefer, strict=True))).trial == best


def test_the_front_is_in_the_order_of_the_first_task():
    assert [p.trial for p in tuning(POINTS[::-1]).front] == [0, 1, 2]


def test_the_chart_can_be_drawn_and_shows_every_point(tmp_path):
    svg = vl_convert.vegalite_to_svg(chart(tuning(), "ctr", "cvr"))
    labels = re.findall(r'aria-roledescription="point"', svg)
    assert len(labels) == 4
    for text in ("lambda ctr: 1.1", "cvr against alone: +0.00%", "trial: 3"):
        assert text in svg


def test_the_page_needs_no_network_and_holds_what_the_chart_shows(tmp_path):
    write_page(tmp_path / "front.html", tuning())
    page = (tmp_path / "front.html").read_text()
    assert vega_script() in page
    rest = page.replace(vega_script(), "")
    assert not re.search(r"(src|href)\s*=|url\(|@import|fetch\(|https?://(?!vega\.github\.io/schema)", rest)
    (spec,) = specs(page)
    (rows,) = [rows for rows in data(spec) if len(rows) == 4]
    assert [row["lambda ctr"] for row in rows] == [1.0, 1.1, 1.2, 1.3]
    assert {
        field["field"] for layer in spec["layer"] for field in layer["encoding"].get("tooltip", [])
    } == set(rows[0])
    assert "mtlrank train 1" in rest
    assert rest.count("<tr") == 1 + 3
    assert [file.name for file in tmp_path.iterdir()] == ["front.html"]


def test_no_value_ends_the_script_or_becomes_markup(tmp_path):
    odd = "</script><b>[x]"
    write_page(
        tmp_path / "front.html",
        tuning(tuple(point(i, 0.8 + i / 10, 0.9, **{"model.name": odd}) for i in range(3))),
    )
    page = (tmp_path / "front.html").read_text()
    assert "</script><b>" not in page
    assert "&lt;/script&gt;&lt;b&gt;[x]" in page
    (spec,) = specs(page)
    assert any(row.get("model_name") == odd for rows in data(spec) for row in rows)


def test_three_tasks_have_three_charts(tmp_path):
    alone = {**ALONE, "dwell": 0.5}
    points = tuple(
        Point(
            i,
            dict.fromkeys(alone, 1.0),
            {},
            {task: loss + i / 100 for task, loss in alone.items()},
            {},
            True,
            "x",
        )
        for i in range(2)
    )
    write_page(tmp_path / "front.html", Tuning("s", points, {}, alone, dict.fromkeys(alone, 1.0), 0))
    page = (tmp_path / "front.html").read_text()
    assert len(specs(page)) == page.count('class="chart"') == 3
