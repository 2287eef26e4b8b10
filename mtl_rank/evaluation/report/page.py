"""report.html: one file about one run, for people who were not there."""

from pathlib import Path

from mtl_rank.evaluation.report.facts import read_facts
from mtl_rank.evaluation.report.headline import headline
from mtl_rank.evaluation.report.sections import (
    data_section,
    learning_section,
    run_section,
    slices_section,
)
from mtl_rank.evaluation.report.since import since_section
from mtl_rank.evaluation.report.tasks import task_sections
from mtl_rank.pages import Figures, Html, save_page
from mtl_rank.runs import Run


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
        since_section(facts),
        learning_section(facts, figures),
        data_section(facts, figures),
        run_section(facts),
    ]
    save_page(run.report, title, Html("".join(parts)), figures)
    return run.report
