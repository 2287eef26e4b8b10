"""The pages in a browser without a network: no error, every chart drawn, nothing wider than a phone, light and dark."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_compare import copied

import mtl_rank as mr
from mtl_rank.runs import find_run

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")

DRAWN = """[...document.querySelectorAll('.chart')].map(chart => [...chart.querySelectorAll(
    '.mark-line path, .mark-area path, .mark-rect path, .mark-symbol path, .mark-rule line'
)].filter(mark => { const box = mark.getBoundingClientRect(); return box.width + box.height > 0; }).length)"""
# Where tables that are wider than their box lie after they were scrolled to their end, and before.
SCROLLED = """[...document.querySelectorAll('.scroll')].filter(box => box.scrollWidth > box.clientWidth).map(box => {
    const cell = box.querySelector('tbody td'), before = cell.getBoundingClientRect().left;
    const covered = getComputedStyle(box).backgroundImage.split('linear-gradient').length - 1;
    box.scrollLeft = box.scrollWidth;
    return [cell.getBoundingClientRect().left - before, covered];
})"""
# Of each chart with a zero line how far that is from the ends of the axis.
ZERO_LINES = """[...document.querySelectorAll('.chart')].map(chart => {
    const line = chart.querySelector('.mark-rule line[stroke-dasharray]').getBoundingClientRect();
    const frame = chart.querySelector('.mark-group.role-frame path.background').getBoundingClientRect();
    return Math.min(line.left - frame.left, frame.right - line.right);
})"""
EPOCHS = """[...document.querySelectorAll('.chart')].map(
    chart => [...chart.querySelectorAll('.role-axis')].filter(
        axis => [...axis.querySelectorAll('.role-axis-title text')].some(title => title.textContent == 'epoch')
    ).flatMap(axis => [...axis.querySelectorAll('.role-axis-label text')].map(label => label.textContent))
).filter(labels => labels.length)"""
FINISHED = "[...document.querySelectorAll('.chart')].every(chart => chart.dataset.state)"


@pytest.fixture(scope="module")
def pages(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A report, and a comparison of the run with a copy of it that is much worse."""
    project = shutil.copytree(trained, tmp_path_factory.mktemp("pages") / "shop")
    run = find_run(project)
    other = copied(run, "20260101-worse", noise=3.0)
    mr.compare(project, [run.id, other.id], draws=100)
    # Of the copy nothing but the numbers themselves is known: no interval.
    mr.evaluate(project, other.id, draws=0)
    metrics = other.metrics()
    for numbers in metrics["test"]["tasks"].values():
        assert not numbers["intervals"]
    mr.report(project, other.id)
    return {"report": run.report, "bare": other.report, "compare": run.folder / "compare.html"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["report", "bare", "compare"])
def test_a_page_is_drawn(browser: Any, pages: dict[str, Path], name: str, width: int, scheme: str) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True)
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url) if request.url.startswith("http") else None)
    page.goto(pages[name].as_uri())
    page.wait_for_function(FINISHED)

    assert said == []
    marks = page.evaluate(DRAWN)
    assert len(marks) == len(page.query_selector_all("figure")) > 0
    assert min(marks) > 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for details in page.query_selector_all("details"):
        details.evaluate("element => element.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    brightness = page.evaluate(
        "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
    )
    assert (sum(brightness) / 3 > 128) == (scheme == "light")
    context.close()


def opened(browser: Any, path: Path, width: int) -> Any:
    page = browser.new_context(viewport={"width": width, "height": 800}, offline=True).new_page()
    page.goto(path.as_uri())
    page.wait_for_function(FINISHED)
    return page


@pytest.mark.parametrize("name", ["report", "compare"])
def test_a_wide_table_on_a_phone_casts_a_shadow_and_keeps_its_first_column(
    browser: Any, pages: dict[str, Path], name: str
) -> None:
    page = opened(browser, pages[name], 390)
    found = page.evaluate(SCROLLED)
    assert found
    assert [(abs(moved) < 1, covered) for moved, covered in found] == [(True, 2)] * len(found)
    page.context.close()


def test_every_epoch_has_its_tick_once(browser: Any, pages: dict[str, Path]) -> None:
    page = opened(browser, pages["report"], 1280)
    labels = page.evaluate(EPOCHS)
    assert labels
    assert labels == [["1", "2"]] * len(labels)
    page.context.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_the_line_of_no_difference_is_not_on_the_edge(
    browser: Any, pages: dict[str, Path], width: int
) -> None:
    page = opened(browser, pages["compare"], width)
    assert min(page.evaluate(ZERO_LINES)) >= 10
    page.context.close()
