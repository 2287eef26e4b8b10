"""The synthetic experiment of the MMoE paper (Ma et al. 2018, section 3.2): shared bottom against MMoE at equal size.

Two regression tasks whose relatedness is known: orthonormal u_1, u_2, w_1 = c u_1, w_2 = c (p u_1 + sqrt(1 - p^2) u_2),
y_k = w_k . x + sum_i sin(a_i w_k . x + b_i) + noise, x ~ N(0, I). Both networks see the same examples, each once.
Prints one table and draws docs/mmoe_paper.svg.

Usage: python benchmarks/mmoe_paper.py [--seeds 10] [--steps 4000] [--tiny]
"""

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from mtl_rank.config import Model
from mtl_rank.nn.layout import Batch, Layout
from mtl_rank.nn.network import RankingNetwork
from mtl_rank.nn.summary import summarise
from mtl_rank.nn.zoo import build_network

CHART = Path(__file__).resolve().parents[1] / "docs" / "mmoe_paper.svg"
RELATEDNESS = (0.5, 0.9, 1.0)
NOISE = 0.1  # standard deviation: variance 0.01
MMOE = Model(name="mmoe", experts=8, expert_layers=(16,), tower_layers=(8,), dropout=0.0)


@dataclass(frozen=True)
class Sizes:
    """dim: length of x. waves: sines per label. steps: batches trained on. test: rows measured on."""

    dim: int = 100
    waves: int = 4
    seeds: int = 10
    steps: int = 4_000
    batch: int = 256
    test: int = 20_000

    @staticmethod
    def tiny() -> "Sizes":
        return Sizes(dim=10, waves=3, seeds=2, steps=30, batch=64, test=500)


@dataclass(frozen=True)
class World:
    """weights: (2, dim). frequencies, phases: (waves,), the same for both tasks."""

    weights: Tensor
    frequencies: Tensor
    phases: Tensor

    def labels(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """(N, dim) -> (N, 2)"""
        linear = x @ self.weights.T
        waves = torch.sin(linear.unsqueeze(2) * self.frequencies + self.phases).sum(dim=2)
        return linear + waves + NOISE * torch.randn(linear.shape, generator=generator)


@dataclass(frozen=True)
class Result:
    """Mean squared test error over the tasks, in units of the labels' variance, of one pair of networks."""

    p: float
    seed: int
    shared_bottom: float
    mmoe: float
    cosine: float
    correlation: float

    @property
    def gap(self) -> float:
        return self.shared_bottom - self.mmoe


def make_world(p: float, seed: int, sizes: Sizes, scale: float = 1.0) -> World:
    """Two tasks with cos(w_1, w_2) = p. Frequencies and phases belong to the seed, not to p."""
    generator = torch.Generator().manual_seed(seed)
    u1, u2 = torch.linalg.qr(torch.randn(sizes.dim, 2, generator=generator, dtype=torch.float64))[0].T
    weights = scale * torch.stack([u1, p * u1 + math.sqrt(1 - p * p) * u2])
    frequencies = 1 + torch.arange(sizes.waves, dtype=torch.float32) / 2
    phases = 2 * math.pi * torch.rand(sizes.waves, generator=generator)
    return World(weights.float(), frequencies, phases)


def draw(world: World, rows: int, generator: torch.Generator) -> Batch:
    x = torch.randn(rows, world.weights.shape[1], generator=generator)
    ids = torch.empty(rows, 0, dtype=torch.int32)
    return Batch(ids=ids, dense=x, sequences=(), labels=world.labels(x, generator))


def network_of(model: Model, sizes: Sizes, seed: int) -> RankingNetwork:
    torch.manual_seed(seed)
    layout = Layout((), (), (), (), tuple(f"x{i}" for i in range(sizes.dim)))
    return build_network(model, layout, torch.zeros(2))


def shared_bottom_like(model: Model, sizes: Sizes) -> Model:
    """A shared bottom whose number of parameters is nearest to that of `model`, gates counted."""
    narrow, wide, budget = (
        _parameters(other, sizes) for other in (_shared_bottom(model, 1), _shared_bottom(model, 2), model)
    )
    # The number grows linearly with the width.
    return _shared_bottom(model, 1 + round((budget - narrow) / (wide - narrow)))


def _shared_bottom(model: Model, width: int) -> Model:
    return model.model_copy(update={"name": "shared_bottom", "bottom_layers": (width,)})


def _parameters(model: Model, sizes: Sizes) -> int:
    return summarise(network_of(model, sizes, 0)).parameters


def train(model: Model, world: World, seed: int, sizes: Sizes) -> float:
    """Train on `steps` batches of new examples; the mean over tasks of test MSE over label variance."""
    network = network_of(model, sizes, seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, sizes.steps)
    for batch in _batches(world, seed, sizes):
        loss = ((network(batch) - batch.labels) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    test = draw(world, sizes.test, torch.Generator().manual_seed(10_000 + seed))
    with torch.inference_mode():
        errors = ((network.eval()(test) - test.labels) ** 2).mean(dim=0)
    return float((errors / test.labels.var(dim=0)).mean())


def _batches(world: World, seed: int, sizes: Sizes) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(20_000 + seed)
    for _ in range(sizes.steps):
        yield draw(world, sizes.batch, generator)


def run_pair(p: float, seed: int, sizes: Sizes) -> Result:
    """Both networks on one world and the same examples."""
    world = make_world(p, seed, sizes)
    y = draw(world, 50_000, torch.Generator().manual_seed(30_000 + seed)).labels
    w = world.weights.double()
    return Result(
        p=p,
        seed=seed,
        shared_bottom=train(shared_bottom_like(MMOE, sizes), world, seed, sizes),
        mmoe=train(MMOE, world, seed, sizes),
        cosine=float(torch.nn.functional.cosine_similarity(w[0], w[1], dim=0)),
        correlation=float(torch.corrcoef(y.T)[0, 1]),
    )


def table(results: Sequence[Result]) -> str:
    """One line per p: means over seeds, and the paired gap with its standard error."""
    lines = [
        "| p | cos(w1, w2) | label correlation | shared bottom | MMoE | gap, shared bottom - MMoE | gap > 0 |",
        "|---|---|---|---|---|---|---|",
    ]
    for p in dict.fromkeys(result.p for result in results):
        own = [result for result in results if result.p == p]
        gaps = torch.tensor([result.gap for result in own], dtype=torch.float64)
        error = float(gaps.std() / math.sqrt(len(gaps))) if len(gaps) > 1 else math.nan
        lines.append(
            f"| {p} | {_mean(r.cosine for r in own):.4f} | {_mean(r.correlation for r in own):.3f} "
            f"| {_mean(r.shared_bottom for r in own):.4f} | {_mean(r.mmoe for r in own):.4f} "
            f"| {float(gaps.mean()):+.4f} ± {error:.4f} | {int((gaps > 0).sum())} of {len(own)} |"
        )
    return "\n".join(lines)


def _mean(values: Iterator[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


def chart(results: Sequence[Result], path: Path) -> None:
    """Each seed's gap as a point, the mean with its standard error beside it."""
    import altair as alt

    rows = [{"p": str(result.p), "gap": result.gap} for result in results]
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        x=alt.X("p:N", title="relatedness p = cos(w1, w2)", axis=alt.Axis(labelAngle=0))
    )
    title = "test error of shared bottom minus that of MMoE"
    points = base.mark_circle(opacity=0.4, size=40).encode(y=alt.Y("gap:Q", title=title))
    bars = base.mark_errorbar(extent="stderr", thickness=2).encode(y=alt.Y("gap:Q", title=title))
    means = base.mark_point(filled=True, color="black", size=70).encode(y="mean(gap):Q")
    zero = alt.Chart(alt.InlineData(values=[{"gap": 0}])).mark_rule(strokeDash=[4, 4]).encode(y="gap:Q")
    (zero + points + bars + means).properties(width=360, height=260).save(str(path))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--tiny", action="store_true", help="prove in seconds that everything runs")
    parser.add_argument("--chart", type=Path, default=CHART)
    options = parser.parse_args()
    sizes = Sizes.tiny() if options.tiny else Sizes()
    given = {key: value for key in ("seeds", "steps") if (value := getattr(options, key)) is not None}
    sizes = replace(sizes, **given)
    start = time.monotonic()
    results = []
    for seed in range(1, sizes.seeds + 1):
        for p in RELATEDNESS:
            results.append(run_pair(p, seed, sizes))
            one = results[-1]
            print(f"seed {seed} p {p}: {one.shared_bottom:.4f} {one.mmoe:.4f}", flush=True)
    like = shared_bottom_like(MMOE, sizes)
    counts = [_parameters(model, sizes) for model in (like, MMOE)]
    print(
        f"\nShared bottom of {like.bottom_layers[0]} units, {counts[0]:,} parameters; MMoE of 8 experts of 16 units, "
        f"{counts[1]:,}, gates counted. {sizes.steps:,} batches of {sizes.batch}, {sizes.seeds} seeds, "
        f"{time.monotonic() - start:.0f} s. Errors are test MSE over the labels' variance.\n"
    )
    print(table(results))
    if find_spec("altair") and find_spec("vl_convert"):
        chart(results, options.chart)
    else:
        print("\nThe chart needs altair and vl-convert-python.")


if __name__ == "__main__":
    main()
