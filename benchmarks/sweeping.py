"""The questions of sweeps.py: what is varied, and how the answer is shown."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from trainings import Data, Job, Results, Row, spread, training_job

Settings = Mapping[str, Any]
Jobs = Mapping[str, Sequence[Job]]
NO_STATISTICS = "ranking_without_statistics"
SERVICES = {
    "kuairand": """from feast import FeatureService
from history import user_history
from profiles import user_profile, video_facts

FEATURES = [user_profile, video_facts, user_history]
""",
    "shop": """from feast import FeatureService
from views import item_profile, price_match, user_history, user_profile

FEATURES = [user_profile, item_profile, user_history, price_match]
""",
}
# The key that only statistics are joined by would go with them: it stays, as a column of the rows.
KEPT_KEYS = {"kuairand": "tag_id", "shop": "category_id"}
DEFINITION = f"""
without_statistics = FeatureService(name="{NO_STATISTICS}", features=FEATURES)
"""


@dataclass(frozen=True)
class Question:
    """One question. variants: what is compared, by name. of: the data it is asked of, made from the usual one."""

    name: str
    asks: str
    variants: Mapping[str, Settings]
    of: Callable[[Data], Data] = lambda data: data


def _widths(key: str, *several: Sequence[int]) -> dict[str, Settings]:
    return {"-".join(map(str, widths)): {key: list(widths)} for widths in several}


def _attention() -> dict[str, Settings]:
    service = {"with statistics": {}, "without": {"feature_service": NO_STATISTICS}}
    return {
        f"{encoder}, {name}": {"model.name": "shared_bottom", "model.sequences": encoder, **chosen}
        for name, chosen in service.items()
        for encoder in ("none", "mean", "din", "dien", "bst")
    }


def rare_task(data: Data) -> Data:
    """The task with about one positive in a hundred, on its own: like (KuaiRand), purchase of all shown (shop)."""
    label = "purchased" if "shop" in data.name else "is_like"
    settings = {"tasks": {"rare": {"label": label}}, "calibration": {"method": "platt"}}
    return replace(data, tasks=("rare",), outputs=("rare",), settings={**data.settings, **settings})


def _losses() -> dict[str, Settings]:
    weighted = {"weighted bce, balanced": {"name": "weighted_bce", "balanced": True}, "focal": "focal"}
    kept = (0.3, 0.1, 0.03)
    return {
        "bce": {"model.name": "dnn"},
        **{name: {"model.name": "dnn", "tasks.rare.loss": loss} for name, loss in weighted.items()},
        **{
            f"bce, {keep:.0%} of the negatives": {
                "model.name": "dnn",
                "fit.negatives": {"task": "rare", "keep": keep},
            }
            for keep in kept
        },
    }


QUESTIONS = (
    Question(
        "embeddings",
        "Shared or independent embeddings for FM and the deep part (DeepFM)?",
        {
            name: {"model.name": "deepfm", "model.fields.embeddings": name}
            for name in ("shared", "independent")
        },
    ),
    Question(
        "crossing",
        "DCN V2 or xDeepFM, in quality and cost?",
        {
            "dnn": {"model.name": "dnn"},
            "dcn_v2, full": {"model.name": "dcn_v2"},
            "dcn_v2, rank 32": {"model.name": "dcn_v2", "model.cross.rank": 32},
            "xdeepfm": {"model.name": "xdeepfm"},
        },
    ),
    Question(
        "attention",
        "What does attention over the history add, with and without history statistics?",
        _attention(),
    ),
    Question(
        "dim", "How wide embeddings?", {f"dim {dim:02}": {"model.dim": dim} for dim in (4, 8, 16, 32, 64)}
    ),
    Question(
        "layers",
        "How deep and wide?",
        {
            name: {"model.name": "shared_bottom", **chosen}
            for name, chosen in _widths(
                "model.bottom_layers",
                [32],
                [128],
                [64, 32],
                [128, 64],
                [256, 128],
                [128, 64, 32],
                [256, 128, 64],
            ).items()
        },
    ),
    Question(
        "experts_on_data",
        "How many experts, on data?",
        {f"{count:02} experts": {"model.experts": count} for count in (1, 2, 4, 8, 16)},
    ),
    Question("losses", "Which loss for a task with one positive in a hundred?", _losses(), rare_task),
)


def jobs_of(question: Question, data: Data, seeds: int) -> dict[str, list[Job]]:
    """A job per variant and seed."""
    asked = question.of(data)
    found = {}
    for name, settings in question.variants.items():
        if NO_STATISTICS in settings.values():
            _add_service(data)
            settings = {**settings, f"context.{KEPT_KEYS[_kind(data)]}": {"role": "categorical"}}
        found[name] = [
            training_job(asked, f"{question.name}: {name}", settings, seed) for seed in range(1, seeds + 1)
        ]
    return found


def _kind(data: Data) -> str:
    return "kuairand" if data.name == "KuaiRand" else "shop"


def _add_service(data: Data) -> None:
    """A feature service without statistics of the past, registered in the project once."""
    from mtl_rank.datasets.projects import apply_features

    file = data.project / "feature_repo" / "without_statistics.py"
    if not file.exists():
        file.write_text(SERVICES[_kind(data)] + DEFINITION, encoding="utf-8")
        apply_features(file.parent)


def _mean(rows: Sequence[Row], key: str) -> float:
    return float(np.mean([row[key] for row in rows]))


def table(question: Question, data: Data, jobs: Jobs, results: Results, seeds: int) -> str:
    """Markdown. Where there is a calibration, its NE stands behind the network's own."""
    outputs = question.of(data).outputs
    calibrated = bool(results[next(iter(jobs.values()))[0]]["uncalibrated"])
    own = "NE and calibration of the network, after Platt scaling" if calibrated else "NE"
    lines = [
        f"\n### {question.asks}\n\n{data.name}, {seeds} seeds: test AUC / {own}\n",
        f"| variant | parameters | rows/s | {' | '.join(outputs)} |",
        "|---|---|---|" + "---|" * len(outputs),
    ]
    for name, of_variant in jobs.items():
        rows = [results[job] for job in of_variant]
        cells = [_cell(rows, output) for output in outputs]
        speed = _mean(rows, "rows_per_second")
        lines.append(f"| {name} | {rows[0]['parameters']:,} | {speed:,.0f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(rows: Sequence[Row], output: str) -> str:
    final = [row["outputs"][output] for row in rows]
    parts = [spread([one["auc"] for one in final])]
    before = [row["uncalibrated"][output] for row in rows if output in row["uncalibrated"]]
    for numbers in [before, final] if before else []:
        parts.append(
            f"{spread([one['ne'] for one in numbers])}, {spread([one['calibration'] for one in numbers], 2)}"
        )
    return " / ".join(parts if before else [*parts, spread([one["ne"] for one in final])])


def chart(question: Question, data: Data, jobs: Jobs, results: Results, folder: Path) -> None:
    """AUC of every seed, its mean and standard deviation, a panel per output; an SVG and a PNG."""
    import altair as alt

    points = [
        {"variant": name, "output": output, "auc": results[job]["outputs"][output]["auc"]}
        for name, of_variant in jobs.items()
        for job in of_variant
        for output in question.of(data).outputs
    ]
    base = alt.Chart(alt.InlineData(values=points)).encode(
        y=alt.Y("variant:N", sort=list(jobs), title=None),
        x=alt.X("auc:Q", title="test AUC", scale=alt.Scale(zero=False)),
    )
    layers = (
        base.mark_circle(opacity=0.4, size=30)
        + base.mark_errorbar(extent="stdev")
        + base.encode(x=alt.X("mean(auc):Q")).mark_point(filled=True, color="black", size=50)
    )
    panels = layers.properties(width=220).facet(
        column=alt.Column("output:N", title=None, sort=list(question.of(data).outputs))
    )
    _save(
        panels.resolve_scale(x="independent").properties(title=f"{question.asks} {data.name}"),
        folder / f"tuning_{question.name}_{_kind(data)}",
    )


def relatedness(experts: int, p: float, seed: int, tiny: bool) -> Row:
    """Test error of an MMoE of so many experts on the MMoE paper's two tasks, whose weights have cosine p."""
    import torch
    from mmoe_paper import MMOE, Sizes, make_world, train

    torch.set_num_threads(1)
    sizes = Sizes.tiny() if tiny else Sizes()
    model = MMOE.model_copy(update={"experts": experts})
    return {"error": train(model, make_world(p, seed, sizes), seed, sizes)}


def experts_jobs(seeds: int, tiny: bool) -> dict[tuple[float, int], list[Job]]:
    """By relatedness and number of experts, a job per seed."""
    size = "tiny" if tiny else "full"
    return {
        (p, experts): [
            Job(
                ("experts and relatedness", size, f"{p}", f"{experts}", f"{seed}"),
                relatedness,
                (experts, p, seed, tiny),
            )
            for seed in range(1, seeds + 1)
        ]
        for p in (0.5, 0.9, 1.0)
        for experts in (1, 2, 4, 8, 16)
    }


def experts_table(jobs: Mapping[tuple[float, int], Sequence[Job]], results: Results, seeds: int) -> str:
    counts = sorted({experts for _, experts in jobs})
    lines = [
        "\n### How many experts, against the relatedness of the tasks?\n",
        f"The MMoE paper's synthetic tasks, experts of 16 units, {seeds} seeds: test MSE over the labels' variance\n",
        f"| p = cos(w1, w2) | {' | '.join(f'{count} experts' for count in counts)} |",
        "|---|" + "---|" * len(counts),
    ]
    for p in dict.fromkeys(p for p, _ in jobs):
        cells = [spread([results[job]["error"] for job in jobs[p, count]]) for count in counts]
        lines.append(f"| {p} | {' | '.join(cells)} |")
    return "\n".join(lines)


def experts_chart(jobs: Mapping[tuple[float, int], Sequence[Job]], results: Results, path: Path) -> None:
    import altair as alt

    points = [
        {"p": f"p = {p}", "experts": experts, "error": results[job]["error"]}
        for (p, experts), of_cell in jobs.items()
        for job in of_cell
    ]
    base = alt.Chart(alt.InlineData(values=points)).encode(
        x=alt.X("experts:O", title="experts", axis=alt.Axis(labelAngle=0)), color=alt.Color("p:N", title=None)
    )
    title = "test MSE / variance of the labels"
    lines = base.mark_line(point=True).encode(y=alt.Y("mean(error):Q", title=title))
    bars = base.mark_errorbar(extent="stdev").encode(y=alt.Y("error:Q", title=title))
    _save((bars + lines).properties(width=320, height=220), path)


def _save(chart: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    chart.save(f"{path}.svg")
    chart.save(f"{path}.png", ppi=150)
