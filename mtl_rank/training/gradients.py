"""How the tasks pull on what they share: the inner products of their gradients."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtl_rank.nn.network import RankingNetwork
from mtl_rank.training.distributed import mean_over_processes, world_size
from mtl_rank.training.optim import sum_by_row


class SharedGradients:
    """The Gramian G_st = <d L_s / d h, d L_t / d h> of the tasks' losses, h what all of them share.

    of "embeddings": h is what was looked up in the embedding tables for the batch. Whatever the model, every task of
    it reads that and nothing before it, and the gradients are small: one row per example.
    of "parameters": h is every parameter outside of the heads, the tables included. The parameters of one task
    alone (a gate) add to its norm only.

    The network is watched, not changed; nothing is added to any `grad`.
    """

    def __init__(self, network: RankingNetwork, of: str) -> None:
        self._embedded: list[Tensor] = []
        self._parameters: list[nn.Parameter] | None = None
        if of == "parameters":
            own = {id(parameter) for parameter in network.heads.parameters()}
            self._parameters = [p for p in network.parameters() if id(p) not in own]
        else:
            network.embeddings.register_forward_pre_hook(self._forget)
            for module in network.modules():
                if isinstance(module, nn.Embedding):
                    module.register_forward_hook(self._keep)

    def gramian(self, losses: Tensor) -> Tensor:
        """(T, T), of the global batch. losses: (T,), of the network's last forward pass."""
        shared = self._embedded if self._parameters is None else self._parameters
        gradients = [
            torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True) for loss in losses
        ]
        gramian = torch.zeros(len(losses), len(losses), device=losses.device)
        for of_one in zip(*gradients, strict=True):
            gramian += _inner_products(of_one)
        # Each process has its own rows, and a loss that is the global one as a mean over the processes.
        return mean_over_processes(gramian) / world_size() if self._parameters is None else gramian

    def _forget(self, _module: nn.Module, _inputs: object) -> None:
        self._embedded = []

    def _keep(self, _module: nn.Module, _inputs: object, embedded: Tensor) -> None:
        if embedded.requires_grad:
            self._embedded.append(embedded)


def _inner_products(gradients: Sequence[Tensor | None]) -> Tensor | float:
    """(T, T) of the gradients of one tensor; None = the task does not depend on it."""
    # Of a table every task's gradient names the same rows, those of the batch.
    values = [None if g is None else (sum_by_row(g)[1] if g.is_sparse else g).flatten() for g in gradients]
    known = next((v for v in values if v is not None), None)
    if known is None:
        return 0.0
    matrix = torch.stack([torch.zeros_like(known) if v is None else v for v in values]).float()
    return matrix @ matrix.T


def cosines(gramian: Tensor) -> Tensor:
    """(T, T) the cosine between each two tasks' gradients; 0 where one of them is 0. Negative = conflict."""
    norms = gramian.diagonal().clamp(min=0).sqrt()
    scale = torch.outer(norms, norms)
    return torch.where(scale > 0, gramian / torch.where(scale > 0, scale, 1), 0)
