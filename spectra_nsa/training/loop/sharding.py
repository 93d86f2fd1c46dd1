"""What a trainer does otherwise where several processes share the encoder out among them."""

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
from spectra_nsa.training.loop.shard_optimizer import WholeState
from spectra_nsa.training.loop.shards import Shards


class ShardingTrainer(SentenceTransformerTrainer):
    """sentence-transformers' trainer, for a model that may be shared out; checkpoints are those of a whole one.

    transformers' own ways to shard a model need it wrapped, loaded or saved by accelerate, and save parts of it.
    """

    shards: Shards | None = None
    _whole: WholeState | None = None

    def share_out(self, precision: str) -> None:
        """Shares the model out, before training begins; each process has the same weights.

        Args:
            precision: see `resolve_precision`.
        """
        self.shards = Shards(cast(SpectraSentenceTransformer, self.model), precision)
        # transformers looks once, at the gradients of the first step, and there are none if that is skipped
        self._mixed_mesh_grads = True

    def gathered(self) -> AbstractContextManager[None]:
        """Where a process may use the model without the others; to be entered and left by all."""
        return contextlib.nullcontext() if self.shards is None else self.shards.gathered()

    def split_groups(self, optimizer: Any) -> Any:
        """The optimiser, its groups such that none mixes weights that are shared out with others."""
        if self.shards is not None and self._whole is None:
            self._whole = WholeState(optimizer)
        return optimizer

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        with self.gathered():  # the processes encode other texts each
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
            with self.shards.standing_in(state):
                super()._save(output_dir)

    def _load_from_checkpoint(self, checkpoint_path: str, *args: Any) -> None:
        if self.shards is None:
            super()._load_from_checkpoint(checkpoint_path, *args)
        else:
            self.shards.load(load(checkpoint_path, device="cpu").spectra.state_dict())

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self._whole is None:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        assert self.lr_scheduler is not None
        state = self._whole.state()
        if self.args.should_save:
            torch.save(state, Path(output_dir) / OPTIMIZER_NAME)
            schedule = self._whole.schedule_state(self.lr_scheduler.state_dict(), whole=True)
            torch.save(schedule, Path(output_dir) / SCHEDULER_NAME)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self._whole is None or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        assert self.optimizer is not None and self.lr_scheduler is not None
        # transformers would bring the whole state into each GPU's memory
        state = torch.load(Path(checkpoint) / OPTIMIZER_NAME, map_location="cpu", weights_only=True, mmap=True)
        self.optimizer.load_state_dict(self._whole.shared_out(state))
        schedule = torch.load(Path(checkpoint) / SCHEDULER_NAME, weights_only=True)
        self.lr_scheduler.load_state_dict(self._whole.schedule_state(schedule, whole=False))
