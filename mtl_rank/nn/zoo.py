"""Named models: a table from name to composition, and the network of a configuration."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from mtl_rank.config import Model, Task
from mtl_rank.errors import ConfigError, did_you_mean
from mtl_rank.nn.branches import BRANCHES, STACKABLE, Branches, Sizes
from mtl_rank.nn.composition import Parts, check_inputs, check_losses, check_parts, check_relations
from mtl_rank.nn.embedding import Embeddings
from mtl_rank.nn.fields import build_fields, fields_shape
from mtl_rank.nn.heads import HEADS, Relations
from mtl_rank.nn.init import initialise
from mtl_rank.nn.layout import Layout
from mtl_rank.nn.network import RankingNetwork, input_width
from mtl_rank.nn.plugins import load_plugins
from mtl_rank.nn.sequences import NO_SEQUENCES, SEQUENCES, Histories
from mtl_rank.nn.trunks import TRUNKS


@dataclass(frozen=True)
class Entry:
    """One model of the zoo: what the parts of the composition are. paper: whose; needs: beyond any task."""

    summary: str
    paper: str
    trunk: str
    branches: tuple[str, ...] = ()
    sequences: str | None = None
    heads: str | None = None
    needs: str = ""


A_HISTORY = "a history that shares an id input's embedding"

ZOO = {
    "dnn": Entry(
        "a network per task on shared embeddings; with one task the plain single-task model", "", "dnn"
    ),
    "wide_deep": Entry(
        "first-order weights and crosses beside a network", "Cheng et al. 2016", "dnn", ("wide",)
    ),
    "deepfm": Entry("first order, all pairs, and a network", "Guo et al. 2017", "dnn", ("wide", "fm")),
    "dcn": Entry("a cross network beside a network", "Wang et al. 2017", "dnn", ("cross",)),
    "dcn_v2": Entry(
        "a cross network with full, low-rank or mixed matrices", "Wang et al. 2021", "dnn", ("cross_v2",)
    ),
    "xdeepfm": Entry(
        "first order, compressed interactions of fields, and a network",
        "Lian et al. 2018",
        "dnn",
        ("wide", "cin"),
    ),
    "din": Entry(
        "the history weighed by the candidate", "Zhou et al. 2018", "dnn", sequences="din", needs=A_HISTORY
    ),
    "dien": Entry(
        "interests that evolve towards the candidate",
        "Zhou et al. 2019",
        "dnn",
        sequences="dien",
        needs=f"{A_HISTORY}, in time order",
    ),
    "bst": Entry(
        "a transformer over history and candidate",
        "Chen et al. 2019",
        "dnn",
        sequences="bst",
        needs=f"{A_HISTORY}, in time order",
    ),
    "shared_bottom": Entry("one network for all tasks", "Caruana 1997", "shared_bottom"),
    "omoe": Entry("experts mixed by one gate for all tasks", "Ma et al. 2018", "omoe"),
    "mmoe": Entry("experts mixed by a gate per task", "Ma et al. 2018", "mmoe"),
    "ple": Entry(
        "experts of each task beside shared ones, in levels", "Tang et al. 2020", "ple", needs="two tasks"
    ),
    "esmm": Entry(
        "losses on each step's probability over all rows, the conditional ones as factors",
        "Ma et al. 2018",
        "dnn",
        heads="esmm",
        needs="a binary task with `given`",
    ),
    "aitm": Entry(
        "each task passes information to the next one",
        "Xi et al. 2021",
        "dnn",
        heads="aitm",
        needs="two tasks, the earlier step first",
    ),
}


def parts_of(model: Model) -> Parts:
    """The composition that a configuration asks for. Raises ConfigError for a name that is not in the zoo."""
    load_plugins()
    if model.name not in ZOO:
        raise ConfigError(f"model.name: there is no model {model.name!r}; {did_you_mean(model.name, ZOO)}")
    entry = ZOO[model.name]
    for key, own in (("sequences", entry.sequences), ("heads", entry.heads)):
        wanted = getattr(model, key)
        if own is not None and wanted not in (None, own):
            raise ConfigError(
                f"model.{key}: {model.name} has {own}, not {wanted}; leave it out or use another name"
            )
    return Parts(
        trunk=entry.trunk,
        branches=tuple(dict.fromkeys([*entry.branches, *model.branches])),
        sequences=entry.sequences or model.sequences or "mean",
        heads=entry.heads or model.heads or "towers",
    )


def check_model(model: Model, tasks: Mapping[str, Task] | None = None, layout: Layout | None = None) -> None:
    """Raises ConfigError for a composition that cannot work, as far as tasks and inputs are known."""
    parts = parts_of(model)
    check_parts(parts, model)
    if tasks is not None:
        check_relations(parts, Relations.of(tasks))
        check_losses(parts, tasks)
    if layout is not None:
        check_inputs(parts, model, layout)


def build_network(
    model: Model, layout: Layout, prior: Tensor, tasks: Mapping[str, Task] | None = None
) -> RankingNetwork:
    """The network of a configuration. Weights follow torch's global seed.

    prior: (C,) where each output starts. tasks: what they are to each other; None = so many binary tasks on their own.
    Raises ConfigError for a combination that cannot work.
    """
    check_model(model, tasks, layout)
    parts = parts_of(model)
    relations = Relations.none(len(prior)) if tasks is None else Relations.of(tasks)
    with_sequences = parts.sequences != NO_SEQUENCES and bool(layout.sequences)
    width = input_width(layout, with_sequences)
    trunk = TRUNKS[parts.trunk](width, len(relations.given), model)
    frozen = [name for name, given in model.pretrained.items() if given.frozen]
    embeddings = Embeddings(layout, with_sequences, dropout=model.embedding_dropout, frozen=frozen)
    read = layout if with_sequences else replace(layout, sequences=())
    reads_fields = any(BRANCHES[name].reads_fields for name in parts.branches)
    sizes = Sizes(read, width, relations.columns.towers, fields_shape(read, model))
    stacked = [name for name in parts.branches if name in STACKABLE and model.cross.stacked]
    built = {name: BRANCHES[name].build(sizes, model) for name in parts.branches if name not in stacked}
    branches = Branches(built) if built else None
    heads = HEADS[parts.heads](trunk.width, model, prior, relations, branches.width if branches else 0)
    for module in (trunk, heads):
        initialise(module, model.init)
    heads.start_at(prior)
    return RankingNetwork(
        embeddings=embeddings,
        histories=Histories(layout, SEQUENCES[parts.sequences], model) if with_sequences else None,
        trunk=trunk,
        heads=heads,
        branches=branches,
        fields=build_fields(read, model) if reads_fields else None,
        stacked=STACKABLE[stacked[0]](width, model.cross) if stacked else None,
    )
