"""Named models: a table from name to the trunk that makes it."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from mtl_rank.config import Model
from mtl_rank.errors import ConfigError, did_you_mean
from mtl_rank.nn.embedding import Embeddings
from mtl_rank.nn.heads import Towers
from mtl_rank.nn.layout import Layout
from mtl_rank.nn.network import RankingNetwork, input_width
from mtl_rank.nn.sequences import MeanPooling
from mtl_rank.nn.trunks import MMoE, Separate, SharedBottom


@dataclass(frozen=True)
class Entry:
    """One model of the zoo. trunk: (input width, number of tasks, options) -> module with a `width`."""

    summary: str
    trunk: Callable[[int, int, Model], SharedBottom | Separate | MMoE]


ZOO = {
    "dnn": Entry(
        "a network per task on shared embeddings; with one task the plain single-task model",
        lambda d, tasks, m: Separate(d, tasks, m.bottom_layers, m.dropout),
    ),
    "shared_bottom": Entry(
        "one network for all tasks (Caruana 1997)",
        lambda d, tasks, m: SharedBottom(d, tasks, m.bottom_layers, m.dropout),
    ),
    "mmoe": Entry(
        "experts shared through a gate per task (Ma et al. 2018)",
        lambda d, tasks, m: MMoE(d, tasks, m.experts, m.expert_layers, m.dropout),
    ),
}


def check_model(model: Model) -> None:
    """Raises ConfigError for a name that is not in the zoo or options that cannot work."""
    if model.name not in ZOO:
        raise ConfigError(f"model.name: there is no model {model.name!r}; {did_you_mean(model.name, ZOO)}")
    for key in ("expert_layers", "bottom_layers"):
        if not getattr(model, key):
            raise ConfigError(f"model.{key}: needs at least one width")


def build_network(model: Model, layout: Layout, prior: Tensor) -> RankingNetwork:
    """The network of a configuration. prior: (T,) initial output biases. Weights follow torch's global seed."""
    check_model(model)
    with_sequences = model.sequences != "none" and bool(layout.sequences)
    width = input_width(layout, with_sequences)
    trunk = ZOO[model.name].trunk(width, len(prior), model)
    return RankingNetwork(
        embeddings=Embeddings(layout, with_sequences),
        pooling=MeanPooling() if with_sequences else None,
        trunk=trunk,
        heads=Towers(trunk.width, model.tower_layers, prior, model.dropout),
    )
