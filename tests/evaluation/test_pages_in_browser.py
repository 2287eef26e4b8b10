"""The pages in a browser without a network: no error, every chart drawn, nothing wider than a phone, light and dark."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mtl_rank as mr
from mtl_rank.runs import find_run, write_json

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")

DRAWN = """[...document.querySelectorAll('.chart')].map(chart => [...chart.querySelectorAll(
    '.mark-line path, .mark-area path, .mark-rect path, .mark-symbol path, .mark-rule line'
)].filter(mark => { const box = mark.getBoundingClientRect(); return box.width + box.height > 0; }).length)"""
FINISHED = "[...document.querySelectorAll('.chart')].every(chart => chart.dataset.state)"


@pytest.fixture(scope="module")
def pages(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A report and a comparison of a run with its copy."""
    project = shutil.copytree(trained, tmp_path_factory.mktemp("pages") / "shop")
    run = find_run(project)
    other = shutil.copytree(run.folder, run.folder.with_name("20260101-copy"))
    write_json(other / "run.json", {**run.info(), "id": other.name})
    mr.compare(project, [run.id, other.name], draws=100)
    return {"report": run.report, "compare": run.folder / "compare.html"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["report", "compare"])
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
