"""report.html: one file about one run, for people who were not there. It opens without a network."""

import json
from importlib.resources import files
from pathlib import Path

from mtl_rank.evaluation.report.bundle import vega_script
from mtl_rank.evaluation.report.facts import read_facts
from mtl_rank.evaluation.report.markup import Figures, Html, text
from mtl_rank.evaluation.report.sections import (
    data_section,
    headline,
    learning_section,
    run_section,
    slices_section,
    task_sections,
)
from mtl_rank.runs import Run

CACHE = "cache"


def write_report(run: Run) -> Path:
    """Write the report of a run from what the run's folder holds; returns its path.

    Raises RunError when the run's files cannot be read.
    """
    facts = read_facts(run)
    figures = Figures()
    title = f"{', '.join(facts.config.tasks)} with {facts.config.model.name}"
    parts = [
        headline(facts, title),
        *task_sections(facts, figures),
        slices_section(facts),
        learning_section(facts, figures),
        data_section(facts, figures),
        run_section(facts),
    ]
    body = Html("".join(part for part in parts if part))
    save_page(run.report, title, body, figures, run.project / CACHE)
    return run.report


def save_page(path: Path, title: str, body: Html, figures: Figures, cache: Path) -> None:
    """A complete page: style, content, charts, and the script that draws them."""
    # `<` is escaped so that no text of a chart can end the script element.
    specs = json.dumps(figures.specs, allow_nan=False).replace("<", "\\u003c")
    resources = files("mtl_rank.evaluation.report")
    style, draw = (resources.joinpath(name).read_text(encoding="utf-8") for name in ("look.css", "draw.js"))
    page = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text(title)}</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}
</main>
<script type="application/json" id="charts">{specs}</script>
<script>{vega_script(cache)}</script>
<script>
{draw}</script>
</body>
</html>
"""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(page, encoding="utf-8")
    partial.replace(path)
