"""What teams ask about ranking models, answered by measurement on KuaiRand and the simulated shop.

Prints the tables of docs/tuning.md and draws its charts into docs/img: test AUC and NE, mean and standard deviation of
the seeds. A difference within the deviations is none.
Usage: python benchmarks/sweeps.py [--tiny] [--seeds 3] [--data shop|kuairand] [--only dim,losses] [--jobs 2]

Each finished training is a line of results.jsonl in the work folder: killed and started again, it goes on there.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from sweeping import QUESTIONS, Question, chart, experts_chart, experts_jobs, experts_table, jobs_of, table
from trainings import ROOT, Results, arguments, click_data, parsed

EXPERTS = "experts"


def main() -> None:
    parser = arguments(__doc__, ROOT / ".bench-sweeps")
    names = [*(question.name for question in QUESTIONS), EXPERTS]
    parser.add_argument("--only", help=f"comma-separated: {', '.join(names)}; default: all")
    parser.add_argument("--charts", type=Path, help="default: docs/img; with --tiny in the work folder")
    options = parsed(parser, seeds=3)
    options.charts = options.charts or (options.work / "img" if options.tiny else ROOT / "docs" / "img")
    chosen = options.only.split(",") if options.only else names
    for name in chosen:
        if name not in names:
            parser.error(f"--only: there is no question {name!r}; known: {', '.join(names)}")
    results = Results(options.work / "results.jsonl")
    _on_data([question for question in QUESTIONS if question.name in chosen], options, results)
    if EXPERTS in chosen:
        jobs = experts_jobs(options.seeds, options.tiny)
        results.complete([job for of_cell in jobs.values() for job in of_cell], options.jobs)
        print(experts_table(jobs, results, options.seeds), flush=True)
        experts_chart(jobs, results, options.charts / "tuning_experts_relatedness")


def _on_data(questions: Sequence[Question], options: argparse.Namespace, results: Results) -> None:
    for data in click_data(options):
        for question in questions:
            jobs = jobs_of(question, data, options.seeds)
            results.complete([job for of_variant in jobs.values() for job in of_variant], options.jobs)
            print(table(question, data, jobs, results, options.seeds), flush=True)
            chart(question, data, jobs, results, options.charts)


if __name__ == "__main__":
    main()
