"""What a study searches: the ratios of the lambdas, and whatever else is asked for."""

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial

from mtl_rank.config import ProjectConfig, parse_config, parse_settings
from mtl_rank.errors import ConfigError
from mtl_rank.nn.zoo import check_model

# A task may pull this many times more, or less, than the first one.
WIDEST = 32.0
_SEARCHED = ("model.", "fit.")
_FIXED = ("fit.monitor", "fit.devices", "fit.checkpoint_minutes", "fit.seed")

Searched = CategoricalDistribution | FloatDistribution | IntDistribution
Value = float | int | str
Values = Mapping[str, Value]


@dataclass(frozen=True)
class Space:
    """The lambdas of tasks, and dotted keys with the values they may take.

    Only the ratios of lambdas matter to the direction of a step: each task but the first has one, to the first.
    """

    tasks: tuple[str, ...]
    keys: Mapping[str, Searched]

    def distributions(self) -> dict[str, Searched]:
        ratios = {_ratio(task): FloatDistribution(1 / WIDEST, WIDEST, log=True) for task in self.tasks[1:]}
        return {**ratios, **self.keys}

    def suggest(self, trial: Trial) -> dict[str, Value]:
        """The value of each parameter at a trial; those it has already stay as they are."""
        found: dict[str, Value] = {}
        for name, values in self.distributions().items():
            match values:
                case FloatDistribution():
                    found[name] = trial.suggest_float(name, values.low, values.high, log=values.log)
                case IntDistribution():
                    found[name] = trial.suggest_int(name, values.low, values.high)
                case CategoricalDistribution():
                    found[name] = str(trial.suggest_categorical(name, values.choices))
        return found

    def lambdas(self, values: Values) -> dict[str, float]:
        """Lambdas that sum to the number of tasks, with few digits: they are to be written on a command line."""
        ratios = [1.0, *(float(values[_ratio(task)]) for task in self.tasks[1:])]
        scale = len(ratios) / math.fsum(ratios)
        return {task: float(f"{ratio * scale:.4g}") for task, ratio in zip(self.tasks, ratios, strict=True)}

    def settings(self, values: Values) -> dict[str, str]:
        """The other keys as they would stand behind --set."""
        return {key: str(values[key]) for key in self.keys}

    def starts(self, lambdas: Mapping[str, float]) -> list[dict[str, float]]:
        """Ratios to try first: equal lambdas, and those of the configuration if they are others."""
        equal = dict.fromkeys((_ratio(task) for task in self.tasks[1:]), 1.0)
        first = lambdas[self.tasks[0]]
        given = {_ratio(task): lambdas[task] / first for task in self.tasks[1:]} if first else {}
        inside = given and all(1 / WIDEST <= ratio <= WIDEST for ratio in given.values())
        return [equal, given] if inside and given != equal else [equal]


def parse_search(tasks: Sequence[str], pairs: Sequence[str]) -> Space:
    """`fit.lr=0.0005..0.01` is a range, `model.experts=2|4|8` a choice. Raises ConfigError."""
    keys: dict[str, Searched] = {}
    for pair in pairs:
        key, equals, values = (part.strip() for part in pair.partition("="))
        if not equals or not key.startswith(_SEARCHED) or key in _FIXED:
            raise ConfigError(
                f"--search {pair}: write a key of model or fit and its values, such as "
                "fit.lr=0.0005..0.01 or 'model.experts=2|4|8'"
            )
        keys[key] = _range(pair, values) if ".." in values else _choice(pair, values)
    if len(tasks) == 1 and not keys:
        raise ConfigError("tune: one task has no lambda to search; name more --tasks, or keys with --search")
    return Space(tuple(tasks), keys)


def configured(
    base: ProjectConfig, lambdas: Mapping[str, float], settings: Mapping[str, str]
) -> ProjectConfig:
    """A configuration at a point of the space. Raises ConfigError for a value that its key does not take."""
    parsed = parse_settings(f"{key}={value}" for key, value in settings.items())
    fixed = {"weighting.method": "manual", "weighting.lambdas": dict(lambdas)}
    return parse_config(base.to_yaml(), "tune", {**fixed, **parsed})


def check_space(base: ProjectConfig, space: Space) -> None:
    """Raises ConfigError for a key that does not exist, or a value at the ends of the space that it does not take."""
    for key, values in space.keys.items():
        choices = values.choices if isinstance(values, CategoricalDistribution) else (values.low, values.high)
        for value in choices:
            config = configured(base, base.lambdas(), {key: str(value)})
            check_model(config.model, config.tasks)


def command(
    tasks: Sequence[str],
    overrides: Mapping[str, object],
    lambdas: Mapping[str, float],
    settings: Mapping[str, str],
) -> str:
    """The command line that trains a point. overrides: what tune itself was given with --set."""
    own = {"weighting.method", *(key for key in overrides if key.startswith("weighting.lambdas"))}
    changed = {key: _as_text(value) for key, value in overrides.items() if key not in own}
    words = ["mtlrank", "train", "--tasks", ",".join(tasks), "--weighting", "manual"]
    for task, factor in lambdas.items():
        words += ["--lambda", f"{task}={factor:g}"]
    for key, text in {**changed, **settings}.items():
        words += ["--set", f"{key}={text}"]
    return shlex.join(words)


def _as_text(value: object) -> str:
    """A value in one line of YAML."""
    return (
        yaml.safe_dump(value, default_flow_style=True, width=float("inf"))
        .removesuffix("\n")
        .split("\n...")[0]
    )


def _ratio(task: str) -> str:
    return f"lambda/{task}"


def _number(text: str) -> int | float:
    # YAML 1.1 takes 1e-4 for a text.
    return int(text) if re.fullmatch(r"\s*[+-]?\d+\s*", text) else float(text)


def _range(pair: str, values: str) -> Searched:
    try:
        low, high = map(_number, values.split(".."))
    except ValueError:
        low = high = 0
    if not -math.inf < low < high < math.inf:
        raise ConfigError(f"--search {pair}: a range is two numbers, the smaller first, such as 0.0005..0.01")
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high)
    return FloatDistribution(float(low), float(high), log=low > 0)


def _choice(pair: str, values: str) -> Searched:
    choices = list(dict.fromkeys(value.strip() for value in values.split("|")))
    if len(choices) < 2 or not all(choices):
        raise ConfigError(f"--search {pair}: a choice has several values, such as 'model.experts=2|4|8'")
    return CategoricalDistribution(choices)
