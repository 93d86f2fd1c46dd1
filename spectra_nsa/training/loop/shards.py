"""A model whose encoder several processes share out among them (Zhao et al. 2023, PyTorch FSDP; torch's `fully_shard`).

What is shared out are the matrices of the encoder's layers and the token embedding: nearly all numbers of a large
model. Each layer is gathered where it is computed and let go of afterwards, forward and backward. All the rest (norms,
biases, gates, heads) stays whole in each process: it is small, and losses read some of it beside the forward pass.
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
    """A model in training, its encoder shared out among all processes.

    Every process has to make every pass of the model with the others, but within `gathered`.

    Args:
        model: the same weights in each process; changed in place.
        precision: see `resolve_precision`. With bf16 a layer's matrices are gathered in it, which is what autocast
            would make of them, and gradients are averaged in fp32.
    """

    def __init__(self, model: SpectraSentenceTransformer, precision: str) -> None:
        self.model = model
        spectra = model.spectra
        mesh = init_device_mesh(spectra.device.type, (processes.count(),))
        kind = torch.bfloat16 if precision == "bf16" else None
        policy = MixedPrecisionPolicy(kind, torch.float32 if kind else None, cast_forward_inputs=False)
        for layer in spectra.encoder.layers:
            kept = set(layer.parameters()) - _matrices(cast(Block, layer))
            fully_shard(layer, mesh=mesh, mp_policy=policy, ignored_params=kept)
        tokens = spectra.get_input_embeddings()
        fully_shard(tokens, mesh=mesh)
        cast(FSDPModule, tokens).set_unshard_in_backward(False)  # a lookup's gradient does not need the table
        # The root holds nothing; it knows of all layers, so that the next one is gathered while one is computed.
        whole = {weight for weight in spectra.parameters() if not isinstance(weight.data, DTensor)}
        fully_shard(spectra, mesh=mesh, ignored_params=whole)
        self.root = cast(FSDPModule, spectra)
        self._first_pass(precision)

    def _first_pass(self, precision: str) -> None:
        """FSDP finds its root in the first forward pass, which must not be that of the token embedding alone."""
        spectra = self.model.spectra
        training = spectra.training
        with torch.no_grad(), autocast(spectra.device.type, precision):
            spectra.eval()(torch.zeros((1, 1), dtype=torch.long, device=spectra.device), outputs=())
        spectra.train(training)

    @contextlib.contextmanager
    def gathered(self) -> Iterator[None]:
        """Each process holds all weights, and may use the model by itself; to be entered and left by all."""
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
        """Lets go of what is gathered, and of passes whose backward pass will not come."""
        self.root.reset_iter_state()

    def state(self, *, everywhere: bool = False) -> dict[str, Tensor]:
        """The whole model's state, as the unsharded one's; all processes take part.

        Args:
            everywhere: whether all of them get it; else the first alone, and the others get nothing.
        """
        found: dict[str, Tensor] = {}
        for name, value in self.model.spectra.state_dict().items():
            whole = whole_tensor(value)
            if everywhere or processes.is_first():
                found[name] = whole.cpu()
        return found

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Takes up a whole model's state, which each process has."""
        now = self.model.spectra.state_dict()
        self.model.spectra.load_state_dict({name: part_of(state[name], value) for name, value in now.items()})

    @contextlib.contextmanager
    def standing_in(self, state: dict[str, Tensor]) -> Iterator[None]:
        """An ordinary model of this state, on the CPU, in the place of the one that is shared out: to be saved.

        Args:
            state: see `state`.
        """
        module, ours = self.model[0], self.model.spectra
        module.model = _ordinary(ours, state)
        try:
            yield
        finally:
            module.model = ours

    def end(self) -> None:
        """Puts an ordinary model in the place of the one that is shared out, for good; all processes take part."""
        ours = self.model.spectra
        plain: nn.Module = _ordinary(ours, self.state(everywhere=True))
        self.model[0].model = plain.to(ours.device)


def _matrices(layer: Block) -> set[nn.Parameter]:
    """Returns the matrices of a layer that have at least one row for each process."""
    return {matrix for matrix in layer.matrices() if len(matrix) >= processes.count()}


def _ordinary(ours: SpectraModel, state: dict[str, Tensor]) -> SpectraModel:
    with torch.device("meta"):
        plain = SpectraModel(ours.config)
    plain.load_state_dict(state, assign=True)
    return plain.train(ours.training)


def whole_tensor(value: Tensor) -> Tensor:
    """All of a tensor that may be shared out; all processes take part."""
    return value.full_tensor().detach() if isinstance(value, DTensor) else value.detach()


def part_of(whole: Tensor, like: Tensor) -> Tensor:
    """The whole tensor shared out as `like` is; itself where that is not."""
    if not isinstance(like, DTensor):
        return whole
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
