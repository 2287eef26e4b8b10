"""A search of lambdas from its configuration to a study."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl_rank.config import load_config
from mtl_rank.errors import ConfigError
from mtl_rank.progress import Reporter, Silent
from mtl_rank.workflow.training import checked

if TYPE_CHECKING:
    from mtl_rank.tuning.front import Tuning


def tune(
    project: Path | str,
    tasks: Sequence[str] | None = None,
    *,
    trials: int = 20,
    search: Sequence[str] = (),
    prefer: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    reporter: Reporter | None = None,
) -> "Tuning":
    """Search the lambdas of several tasks, and show what each task gains at the cost of which.

    tasks: None = all. trials: of the study in all, those of an earlier call included. search: other keys with their
    values, such as `fit.lr=0.0005..0.01` or `model.experts=2|4|8`. prefer: `ctr=2`, what a task counts for the best
    point. settings: dotted configuration keys to override. Leaves the study in `tune/` of the project.
    Raises MtlRankError for anything a user can mend.
    """
    # Optuna and Altair are not imported for those who do not tune.
    from mtl_rank.tuning.front import parse_preferences
    from mtl_rank.tuning.space import check_space, parse_search
    from mtl_rank.tuning.tune import Request
    from mtl_rank.tuning.tune import tune as run_study

    project, reporter = Path(project), reporter or Silent()
    if (settings or {}).get("weighting.method", "manual") != "manual":
        raise ConfigError("weighting.method: tune searches the lambdas of manual weighting; leave it out")
    config = load_config(project, {**(settings or {}), "weighting.method": "manual"}, tasks)
    names = list(config.tasks)
    space, weights = parse_search(names, search), parse_preferences(names, prefer)
    if trials < 1:
        raise ConfigError(f"--trials: at least 1, not {trials}")
    check_space(config, space)
    repository = checked(config, project)
    return run_study(Request(config, space, settings or {}, trials, weights), project, repository, reporter)
