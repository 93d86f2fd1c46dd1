"""A model whose encoder is sharded over several processes (Zhao et al. 2023, PyTorch FSDP; torch's `fully_shard`).

The matrices of the encoder's layers and the token embedding are sharded: nearly all numbers of a large model. Each
layer is gathered to be computed and released afterwards, forward and backward. Everything else (norms, biases, gates,
heads) is replicated: it is small, and losses read some of it outside the forward pass.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from spectra_nsa.core import processes
from spectra_nsa.core.precision import autocast
from spectra_nsa.encoder.block import Block
from spectra_nsa.models.model import SpectraModel

if TYPE_CHECKING:
    from spectra_nsa.models.sentence import SpectraSentenceTransformer


class Shards:
    """A model in training, its encoder sharded over all processes.

    Gathering is a collective operation, so every process must run the same number of passes, except within `gathered`.

    Args:
        model: the same weights in each process; changed in place.
        precision: see `resolve_precision`. With bf16 a layer's matrices are gathered in bf16, to which autocast would
            cast them anyway, and gradients are averaged in fp32.
    """

    def __init__(self, model: SpectraSentenceTransformer, precision: str) -> None:
        self.model = model
        spectra = model.spectra
        mesh = init_device_mesh(spectra.device.type, (processes.count(),))
        kind = torch.bfloat16 if precision == "bf16" else None
        policy = MixedPrecisionPolicy(kind, torch.float32 if kind else None, cast_forward_inputs=False)
        for layer in spectra.encoder.layers:
            replicated = set(layer.parameters()) - _matrices(cast(Block, layer))
            fully_shard(layer, mesh=mesh, mp_policy=policy, ignored_params=replicated)
        tokens = spectra.get_input_embeddings()
        fully_shard(tokens, mesh=mesh)
        cast(FSDPModule, tokens).set_unshard_in_backward(False)  # a lookup's gradient does not need the table
        # The root shards nothing. It knows all layers, so the next one is gathered while one is computed.
        replicated = {weight for weight in spectra.parameters() if not isinstance(weight.data, DTensor)}
        fully_shard(spectra, mesh=mesh, ignored_params=replicated)
        self.root = cast(FSDPModule, spectra)
        self._first_pass(precision)

    def _first_pass(self, precision: str) -> None:
        """Runs a forward pass: FSDP finds its root in the first one, which must not be the token embedding's alone."""
        spectra = self.model.spectra
        training = spectra.training
        with torch.no_grad(), autocast(spectra.device.type, precision):
            spectra.eval()(torch.zeros((1, 1), dtype=torch.long, device=spectra.device), outputs=())
        spectra.train(training)

    @contextlib.contextmanager
    def gathered(self) -> Iterator[None]:
        """Gathers all weights, so that a process may use the model without the others; all must enter and leave it."""
        for module in self.model.spectra.modules():
            if isinstance(module, FSDPModule):
                module.unshard()
        self.root.set_reshard_after_forward(False)
        try:
            yield
        finally:
            self.root.set_reshard_after_forward(True)
            self.forget()

    def forget(self) -> None:
        """Releases what is gathered, and forward passes that no backward pass follows."""
        self.root.reset_iter_state()

    def state(self, *, everywhere: bool = False) -> dict[str, Tensor]:
        """Returns the state of the unsharded model on the CPU; all processes must call it.

        Args:
            everywhere: whether all of them get it; else only the first does, and the others get an empty one.
        """
        state: dict[str, Tensor] = {}
        for name, value in self.model.spectra.state_dict().items():
            full = full_tensor(value)
            if everywhere or processes.is_first():
                state[name] = full.cpu()
        return state

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Loads the state of an unsharded model, which each process holds."""
        now = self.model.spectra.state_dict()
        self.model.spectra.load_state_dict({name: shard_of(state[name], value) for name, value in now.items()})

    @contextlib.contextmanager
    def unsharded_copy(self, state: dict[str, Tensor]) -> Iterator[None]:
        """Swaps the sharded model for an unsharded one of this state on the CPU, so that it can be saved.

        Args:
            state: see `state`.
        """
        module, ours = self.model[0], self.model.spectra
        module.model = _unsharded(ours, state)
        try:
            yield
        finally:
            module.model = ours

    def unshard(self) -> None:
        """Replaces the sharded model by an unsharded one for good; all processes must call it."""
        ours = self.model.spectra
        plain: nn.Module = _unsharded(ours, self.state(everywhere=True))
        self.model[0].model = plain.to(ours.device)


def _matrices(layer: Block) -> set[nn.Parameter]:
    """Returns the matrices of a layer that have at least one row for each process."""
    return {matrix for matrix in layer.matrices() if len(matrix) >= processes.count()}


def _unsharded(ours: SpectraModel, state: dict[str, Tensor]) -> SpectraModel:
    with torch.device("meta"):
        plain = SpectraModel(ours.config)
    plain.load_state_dict(state, assign=True)
    return plain.train(ours.training)


def full_tensor(value: Tensor) -> Tensor:
    """Returns the unsharded tensor of one that may be sharded; all processes must call it."""
    return value.full_tensor().detach() if isinstance(value, DTensor) else value.detach()


def shard_of(full: Tensor, like: Tensor) -> Tensor:
    """Shards a tensor as `like` is sharded; returns it unchanged if `like` is not."""
    if not isinstance(like, DTensor):
        return full
    return distribute_tensor(full.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
