"""The page of a study in a browser without a network: every trial is drawn, and pointing at one shows its lambdas."""

import shutil

import pytest
from test_front_page import POINTS, tuning

from mtl_rank.tuning.page import write_page

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium")
POINT = "path[aria-roledescription=point]"


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium")
def test_the_page_draws_every_trial_offline_and_shows_lambdas_under_the_pointer(tmp_path):
    write_page(tmp_path / "front.html", tuning())
    asked, errors = [], []
    with playwright.sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_context(offline=True).new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        page.goto((tmp_path / "front.html").as_uri())
        page.wait_for_selector(POINT)
        assert page.locator(POINT).count() == len(POINTS)
        page.locator(POINT).nth(1).hover(force=True)
        shown = page.locator("#vg-tooltip-element")
        shown.wait_for(state="visible")
        told = shown.inner_text()
        browser.close()
    assert errors == []
    assert [url for url in asked if not url.startswith("file:")] == []
    assert any(
        all(text in told for text in (f"{p.lambdas['ctr']:g}", f"{p.lambdas['cvr']:g}", "lambda ctr"))
        for p in POINTS
    )
