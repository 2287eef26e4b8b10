"""What an exported file holds: encoded rows in, what `Predictor` gives out."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mtl_rank.calibration import Beta, Isotonic, Map, Platt, Temperature
from mtl_rank.data.labels import Target
from mtl_rank.nn.layout import Batch
from mtl_rank.predict import Predictor


class Ranker(nn.Module):
    """A run from encoded rows to calibrated predictions in the unit of each label, chain products behind the tasks.

    Calibration and what follows it are in float64, as in `Predictor`: a steep map would magnify rounding.

    sequences: those of the layout, behind them the gaps of those with times.

    Shape: ids (B, F), dense (B, D), sequences (B, L) each -> per output (B,), float32
    """

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        tasks = list(predictor.config.tasks)
        maps = predictor.calibration.maps
        self.network = predictor.network
        self._histories = len(predictor.encoder.layout.sequences)
        self.calibration = nn.ModuleList(calibration_of(maps.get(name)) for name in tasks)
        self.decoders = nn.ModuleList(_decoder(target) for target in predictor.encoder.targets)
        self._chains = [
            [tasks.index(name) for name in chain] for chain in predictor.config.products().values()
        ]

    def forward(self, ids: Tensor, dense: Tensor, sequences: Sequence[Tensor]) -> tuple[Tensor, ...]:
        histories, gaps = sequences[: self._histories], sequences[self._histories :]
        batch = Batch(ids, dense, tuple(histories), labels=dense[:, :0], gaps=tuple(gaps))
        logits = self.network(batch).double()
        values = [
            decoder(calibrated(z))
            for decoder, calibrated, z in zip(self.decoders, self.calibration, logits.unbind(1), strict=True)
        ]
        products = [torch.stack([values[i] for i in chain]).prod(dim=0) for chain in self._chains]
        return tuple(value.float() for value in [*values, *products])


class Affine(nn.Module):
    """slope z + intercept: Platt scaling, and temperature with slope 1 / T.  Shape: (B,) -> (B,)"""

    def __init__(self, slope: float, intercept: float = 0.0) -> None:
        super().__init__()
        self.slope, self.intercept = slope, intercept

    def forward(self, z: Tensor) -> Tensor:
        return self.slope * z + self.intercept


class BetaMap(nn.Module):
    """a log p - b log(1 - p) + c with p = sigmoid(z).  Shape: (B,) -> (B,)"""

    def __init__(self, beta: Beta) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, z: Tensor) -> Tensor:
        rest = torch.log1p(torch.exp(-z.abs()))
        log_p, log_not = z.clamp(max=0) - rest, (-z).clamp(max=0) - rest
        return self.beta.a * log_p - self.beta.b * log_not + self.beta.c


class PiecewiseLinear(nn.Module):
    """Lines between the knots, slope 1 outside.  Shape: (B,) -> (B,)"""

    knots: Tensor
    starts: Tensor
    values: Tensor
    slopes: Tensor

    def __init__(self, isotonic: Isotonic) -> None:
        super().__init__()
        knots = torch.tensor(isotonic.knots, dtype=torch.float64)
        values = torch.tensor(isotonic.values, dtype=torch.float64)
        one = torch.ones(1, dtype=torch.float64)
        # Piece k lies behind k knots; the one in front of all of them counts back from the first.
        pieces = {
            "knots": knots,
            "starts": torch.cat([knots[:1], knots]),
            "values": torch.cat([values[:1], values]),
            "slopes": torch.cat([one, values.diff() / knots.diff(), one]),
        }
        for name, tensor in pieces.items():
            self.register_buffer(name, tensor)

    def forward(self, z: Tensor) -> Tensor:
        piece = (z.unsqueeze(1) >= self.knots).long().sum(dim=1)
        return self.values[piece] + (z - self.starts[piece]) * self.slopes[piece]


class _Value(nn.Module):
    """A regression output in the unit of its label.  Shape: (B,) -> (B,)"""

    def __init__(self, target: Target) -> None:
        super().__init__()
        self.target = target

    def forward(self, z: Tensor) -> Tensor:
        value = z * self.target.std + self.target.mean
        return torch.expm1(value).clamp(min=0) if self.target.transform == "log1p" else value


def calibration_of(found: Map | None) -> nn.Module:
    """A calibration map as a module; nothing for None."""
    return nn.Identity() if found is None else _MAPS[found.method](found)


def _decoder(target: Target) -> nn.Module:
    return nn.Sigmoid() if target.kind == "binary" else _Value(target)


def _platt(found: Map) -> nn.Module:
    assert isinstance(found, Platt)
    return Affine(found.slope, found.intercept)


def _temperature(found: Map) -> nn.Module:
    assert isinstance(found, Temperature)
    return Affine(1 / found.temperature)


def _beta(found: Map) -> nn.Module:
    assert isinstance(found, Beta)
    return BetaMap(found)


def _isotonic(found: Map) -> nn.Module:
    assert isinstance(found, Isotonic)
    return PiecewiseLinear(found)


_MAPS: dict[str, Callable[[Map], nn.Module]] = {
    "platt": _platt,
    "temperature": _temperature,
    "beta": _beta,
    "isotonic": _isotonic,
}
