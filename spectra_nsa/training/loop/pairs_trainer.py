"""The trainer of a loss stack on rows of texts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from spectra_nsa.losses.finite import NotFiniteError
from spectra_nsa.losses.stack import LossStack
from spectra_nsa.training.data.batch_groups import GroupedBatchSampler
from spectra_nsa.training.data.comparable_rows import ComparableRows
from spectra_nsa.training.loop.plan import TrainerPlan
from spectra_nsa.training.loop.sharding import ShardingTrainer
from spectra_nsa.training.loop.trainer import RunTrainer

if TYPE_CHECKING:
    from datasets import Dataset

    from spectra_nsa.models.sentence import SpectraSentenceTransformer


class PairsTrainer(RunTrainer, ShardingTrainer):
    """Trains a sentence model by a loss stack on rows of texts.

    Args:
        model: the model in training.
        plan: the run.
        loss: the terms.
        groups: the group of each training row; each batch is filled from one group. ``None`` mixes all rows.
        texts: the training rows as texts if `train_dataset` holds token ids; else ``None``.
        shard: whether to shard the encoder over the processes, whose weights are equal by now.
        kwargs: see `SentenceTransformerTrainer`.
    """

    def __init__(
        self,
        model: SpectraSentenceTransformer,
        plan: TrainerPlan,
        *,
        loss: LossStack,
        groups: Sequence[str] | None = None,
        texts: Dataset | None = None,
        shard: bool = False,
        **kwargs: Any,
    ) -> None:
        self.stack, self.groups, self.texts = loss, groups, texts
        super().__init__(model.spectra, plan, model=model, loss=loss, evaluator=plan.evaluator, **kwargs)
        if shard:
            self.shard(plan.precision)

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Adds no callback: it would encode examples for a model card before the first step."""

    def gathered(self) -> AbstractContextManager[None]:
        return ShardingTrainer.gathered(self)

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

    def _running_sums(self) -> dict[str, Any]:
        terms = {name: value.cpu() for name, value in self.accum_loss_components["train"].items()}
        return super()._running_sums() | {"terms": terms}
