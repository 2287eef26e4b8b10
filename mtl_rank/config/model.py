"""The `model` section: which composition is trained, and how wide its layers are."""

from typing import Annotated, Literal

from pydantic import Field

from mtl_rank.config.base import Section, Widths

Dim = Annotated[int, Field(gt=0)] | Literal["auto"]
DEFAULT_DIM = 16


class WideOptions(Section):
    """The wide branch.

    crosses: pairs of inputs; each pair of ids gets a weight of its own, hashed into `buckets` per pair.
    """

    crosses: tuple[tuple[str, str], ...] = ()
    buckets: int = Field(100_000, gt=0)


class CrossOptions(Section):
    """The branches cross (DCN) and cross_v2 (DCN V2).

    rank: W = U V^T of this rank; None = full matrices. experts: more than one = the mixture of low-rank experts.
    stacked: the trunk reads the cross network's output in the place of the input vector.
    """

    layers: int = Field(3, gt=0)
    rank: int | None = Field(None, gt=0)
    experts: int = Field(1, gt=0)
    stacked: bool = False


class FieldOptions(Section):
    """The vectors that fm and cin multiply.

    embeddings: shared = those the trunk reads; independent = tables of their own. dim: width of independent
    ones; None = `model.dim`.
    """

    embeddings: Literal["shared", "independent"] = "shared"
    dim: int | None = Field(None, gt=0)


class HistoryOptions(Section):
    """The sequence encoders.

    attention_layers: of din's attention unit. auxiliary: factor of dien's next-behaviour loss.
    blocks, heads: of bst's transformer.
    """

    attention_layers: Widths = (36,)
    auxiliary: float = Field(1.0, ge=0)
    blocks: int = Field(1, gt=0)
    heads: int = Field(2, gt=0)


class Pretrained(Section):
    """Vectors to start an input's embeddings from: a parquet of one column of keys and one of lists.

    frozen: training leaves them as they are.
    """

    path: str
    frozen: bool = False


class Model(Section):
    """The composition to train. `name` is looked up in nn/zoo.py.

    branches: beside those of the name. sequences, heads: None = those of the name.
    experts: of omoe and mmoe, and the shared ones of ple; task_experts, levels: of ple.
    calibrator: factor of aitm's penalty on a later step that is likelier than the one before it.
    dim: width of embeddings; auto = by the number of values, see data/encoder.py.
    activation, norm, dropout, residual: of every hidden layer; residual = one that keeps its width adds its input.
    init: how the matrices of trunk and towers start. pretrained: vectors by the name of their input.
    """

    name: str = "mmoe"
    dim: Dim = DEFAULT_DIM
    branches: tuple[str, ...] = ()
    sequences: str | None = None
    heads: str | None = None
    experts: int = Field(4, gt=0)
    task_experts: int = Field(2, gt=0)
    levels: int = Field(1, gt=0)
    expert_layers: Widths = (64, 32)
    bottom_layers: Widths = (64, 32)
    tower_layers: Widths = (16,)
    cin_layers: Widths = (32, 32)
    dropout: float = Field(0.2, ge=0, lt=1)
    embedding_dropout: float = Field(0.0, ge=0, lt=1)
    activation: str = "relu"
    norm: str = "none"
    residual: bool = False
    init: str = "default"
    calibrator: float = Field(0.6, ge=0)
    wide: WideOptions = WideOptions()
    cross: CrossOptions = CrossOptions()
    fields: FieldOptions = FieldOptions()
    history: HistoryOptions = HistoryOptions()
    pretrained: dict[str, Pretrained] = Field(default_factory=dict)
