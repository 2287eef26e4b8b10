"""What a network is made of: layers, parameters, floating-point operations."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mtl_rank.nn.layout import Batch, Layout
from mtl_rank.nn.network import RankingNetwork

_ROWS = 8


@dataclass(frozen=True)
class LayerSummary:
    """A module with parameters of its own. shapes: of its parameters, in order; table: row-sparse."""

    name: str
    kind: str
    shapes: tuple[tuple[int, ...], ...]
    parameters: int
    table: bool


@dataclass(frozen=True)
class NetworkSummary:
    """parameters: without the tables. flops: per row of a prediction; a multiplication and an addition are two.

    Matrix products are counted, which is nearly all; look-ups, activations and normalisations are not.
    """

    layers: tuple[LayerSummary, ...]
    parameters: int
    table_parameters: int
    flops: int


def summarise(network: RankingNetwork) -> NetworkSummary:
    """Count a network. It is left in evaluation mode."""
    tables = {id(table) for table in network.tables()}
    layers = [
        _layer(name, module, tables)
        for name, module in network.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    ]
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network.eval()(_anything(network.layout))
    return NetworkSummary(
        layers=tuple(layers),
        parameters=sum(layer.parameters for layer in layers if not layer.table),
        table_parameters=sum(layer.parameters for layer in layers if layer.table),
        flops=round(counter.get_total_flops() / _ROWS),
    )


def _layer(name: str, module: nn.Module, tables: set[int]) -> LayerSummary:
    own = list(module.parameters(recurse=False))
    return LayerSummary(
        name=name,
        kind=type(module).__name__,
        shapes=tuple(tuple(parameter.shape) for parameter in own),
        parameters=sum(parameter.numel() for parameter in own),
        table=all(id(parameter) in tables for parameter in own),
    )


def _anything(layout: Layout) -> Batch:
    """A batch that the network can read; its values do not matter."""
    ids = torch.tensor([[column.offset for column in layout.ids]], dtype=torch.int32)
    return Batch(
        ids=ids.expand(_ROWS, -1),
        dense=torch.zeros(_ROWS, len(layout.dense)),
        sequences=tuple(_padding(column.max_len, column.pad_id) for column in layout.sequences),
        labels=torch.empty(_ROWS, 0),
        gaps=tuple(torch.zeros(_ROWS, column.max_len, dtype=torch.int32) for column in layout.timed),
    )


def _padding(length: int, pad_id: int) -> Tensor:
    return torch.full((_ROWS, length), pad_id, dtype=torch.int32)
