"""What a trainer does differently if the encoder is sharded over the processes."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import torch
from sentence_transformers import SentenceTransformerTrainer
from torch import Tensor
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from spectra_nsa.models.sentence import SpectraSentenceTransformer, load
from spectra_nsa.training.loop.shard_optimizer import UnshardedState
from spectra_nsa.training.loop.shards import Shards


class ShardingTrainer(SentenceTransformerTrainer):
    """sentence-transformers' trainer for a model that may be sharded; its checkpoints are those of an unsharded one.

    transformers' own sharding needs accelerate to wrap, load and save the model, and saves shards of it.
    """

    shards: Shards | None = None
    _unsharded: UnshardedState | None = None

    def shard(self, precision: str) -> None:
        """Shards the model before training begins; every process holds the same weights by now.

        Args:
            precision: see `resolve_precision`.
        """
        self.shards = Shards(cast(SpectraSentenceTransformer, self.model), precision)
        # transformers decides once, by the gradients of the first step, and a skipped step has none
        self._mixed_mesh_grads = True

    def gathered(self) -> AbstractContextManager[None]:
        """Returns the context in which one process may use the model without the others; all must enter it."""
        return contextlib.nullcontext() if self.shards is None else self.shards.gathered()

    def split_groups(self, optimizer: Any) -> Any:
        """Splits the optimizer's groups so that none mixes sharded and unsharded weights; returns the optimizer."""
        if self.shards is not None and self._unsharded is None:
            self._unsharded = UnshardedState(optimizer)
        return optimizer

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        with self.gathered():  # each process encodes different texts
            return super().evaluate(*args, **kwargs)

    def _mixed_mesh_grad_norm(self, model: Any, max_norm: float) -> Tensor:
        if all(weight.grad is None for weight in model.parameters()):  # a skipped step
            return torch.zeros((), device=self.args.device)
        return super()._mixed_mesh_grad_norm(model, max_norm)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if self.shards is None:
            super()._save(output_dir, state_dict)
            return
        state = self.shards.state()
        if self.args.should_save:
            with self.shards.unsharded_copy(state):
                super()._save(output_dir)

    def _load_from_checkpoint(self, checkpoint_path: str, *args: Any) -> None:
        if self.shards is None:
            super()._load_from_checkpoint(checkpoint_path, *args)
        else:
            self.shards.load(load(checkpoint_path, device="cpu").spectra.state_dict())

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self._unsharded is None:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        assert self.lr_scheduler is not None
        state = self._unsharded.state()
        if self.args.should_save:
            torch.save(state, Path(output_dir) / OPTIMIZER_NAME)
            schedule = self._unsharded.schedule_state(self.lr_scheduler.state_dict(), unsharded=True)
            torch.save(schedule, Path(output_dir) / SCHEDULER_NAME)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self._unsharded is None or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        assert self.optimizer is not None and self.lr_scheduler is not None
        # transformers would load the unsharded state into the memory of each GPU
        state = torch.load(Path(checkpoint) / OPTIMIZER_NAME, map_location="cpu", weights_only=True, mmap=True)
        self.optimizer.load_state_dict(self._unsharded.shard(state))
        schedule = torch.load(Path(checkpoint) / SCHEDULER_NAME, weights_only=True)
        self.lr_scheduler.load_state_dict(self._unsharded.schedule_state(schedule, unsharded=False))
