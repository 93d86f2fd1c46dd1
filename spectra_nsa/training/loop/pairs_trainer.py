"""The trainer of a loss stack on rows of texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from spectra_nsa.losses.finite import NotFiniteError
from spectra_nsa.losses.stack import LossStack
from spectra_nsa.models.model import SpectraModel
from spectra_nsa.report.run_log import SET_LOSS
from spectra_nsa.training.data.batch_groups import GroupedBatchSampler
from spectra_nsa.training.data.comparable_rows import ComparableRows
from spectra_nsa.training.data.mixed_batches import SET, MixedBatchSampler
from spectra_nsa.training.loop.plan import Learner, TrainerPlan
from spectra_nsa.training.loop.sharding import ShardingTrainer
from spectra_nsa.training.loop.trainer import RunTrainer

if TYPE_CHECKING:
    from datasets import Dataset

    from spectra_nsa.models.sentence import SpectraSentenceTransformer
    from spectra_nsa.models.sparse.encoder import SpectraSparseEncoder


class SetLosses:
    """The mean loss of each dataset since the last log line.

    Args:
        sums: (2,) by dataset: the sum of its losses, and their number.
    """

    def __init__(self, sums: Mapping[str, Tensor] | None = None) -> None:
        self.sums = dict(sums or {})

    def add(self, name: str, terms: Mapping[str, Tensor]) -> None:
        """Adds the terms of a batch of a dataset."""
        total = torch.stack([value.detach().double() for value in terms.values()]).sum()
        one = torch.stack([total, torch.ones_like(total)])
        self.sums[name] = self.sums[name] + one if name in self.sums else one

    def take(self) -> dict[str, float]:
        """Returns the means, and begins anew."""
        means = {f"{SET_LOSS}{name}": round(float(total / count), 4) for name, (total, count) in self.sums.items()}
        self.sums = {}
        return means


class PairsTrainer(RunTrainer, ShardingTrainer):
    """Trains a sentence model by a loss stack on rows of texts.

    Args:
        model: the model in training.
        plan: the run.
        loss: the terms.
        groups: the group of each training row; each batch is filled from one group. ``None`` mixes all rows.
        texts: the training rows as texts if `train_dataset` holds token ids; else ``None``.
        mixed: returns the batch sampler of several datasets, given the rows of a batch; ``None`` for one dataset.
        shard: whether to shard the encoder over the processes, whose weights are equal by now.
        learner: what learns; ``None`` for the Spectra model inside `model`.
        kwargs: see `SentenceTransformerTrainer`.
    """

    def __init__(
        self,
        model: SpectraSentenceTransformer | SpectraSparseEncoder,
        plan: TrainerPlan,
        *,
        loss: LossStack,
        groups: Sequence[str] | None = None,
        texts: Dataset | None = None,
        mixed: Callable[[int], MixedBatchSampler] | None = None,
        shard: bool = False,
        learner: Learner | None = None,
        **kwargs: Any,
    ) -> None:
        self.stack, self.groups, self.texts, self.mixed = loss, groups, texts, mixed
        self.set_losses = SetLosses()
        super().__init__(
            cast(SpectraModel, model.spectra) if learner is None else learner,
            plan,
            model=model,
            loss=loss,
            evaluator=plan.evaluator,
            **kwargs,
        )
        if shard:
            self.shard(plan.precision)

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Adds no callback: it would encode examples for a model card before the first step."""

    def gathered(self) -> AbstractContextManager[None]:
        return ShardingTrainer.gathered(self)

    def get_train_dataloader(self) -> Any:
        if self.mixed is None:
            return super().get_train_dataloader()
        self.accelerator.even_batches = False  # as sentence-transformers has it for training
        rows: Any = self.train_dataset
        loader = DataLoader[Any](
            rows,
            batch_sampler=self.mixed(self.args.train_batch_size),
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )
        return self.accelerator.prepare(loader)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        self.stack.dataset = inputs.get(SET)
        return super().compute_loss(model, inputs, *args, **kwargs)

    def track_loss_components(self, loss: dict[str, Any]) -> None:
        super().track_loss_components(loss)
        if self.stack.dataset is not None:
            self.set_losses.add(self.stack.dataset, loss)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log({**logs, **self.set_losses.take()} if "loss" in logs else logs, start_time)

    def get_batch_sampler(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        if self.texts is not None and dataset is self.train_dataset:
            dataset = self.texts  # different texts may be cut to the same ids
        if self.groups is None or len(dataset) != len(self.groups):
            return super().get_batch_sampler(ComparableRows(dataset), *args, **kwargs)
        return GroupedBatchSampler(dataset, *args, **kwargs, groups=self.groups)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        return self.split_groups(super().create_optimizer(*args, **kwargs))

    def batch_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any) -> Any:
        try:
            loss = super().batch_step(model, inputs, num_items_in_batch)
            self.stack.finish()
        except NotFiniteError:
            if self.shards is not None:
                self.shards.forget()
            raise
        return loss

    def restore(self) -> None:
        super().restore()
        if self._resumed is not None:
            self.accum_loss_components["train"] = {
                name: value.to(self.args.device) for name, value in self._resumed["terms"].items()
            }
            self.stack.restore(self._resumed.get("stack", {}))
            sums = self._resumed.get("sets", {})
            self.set_losses = SetLosses({name: value.to(self.args.device) for name, value in sums.items()})

    def _running_sums(self) -> dict[str, Any]:
        terms = {name: value.cpu() for name, value in self.accum_loss_components["train"].items()}
        sums = super()._running_sums() | {"terms": terms}
        if self.mixed is not None:
            sums["sets"] = {name: value.cpu() for name, value in self.set_losses.sums.items()}
        if state := self.stack.state():
            sums["stack"] = state
        return sums
