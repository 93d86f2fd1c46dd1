"""The trainer of masked-LM pretraining, and its dev metric."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Sampler

from spectra_nsa.core import processes
from spectra_nsa.core.precision import autocast
from spectra_nsa.losses.finite import NotFiniteError
from spectra_nsa.losses.router_terms import RouterTerms
from spectra_nsa.models.masked_lm import save_masked_lm
from spectra_nsa.models.model import SpectraForMaskedLM
from spectra_nsa.models.sentence import SpectraSentenceTransformer
from spectra_nsa.tokens.length_batches import Work
from spectra_nsa.training.data.packing import IGNORED, PackedSequences
from spectra_nsa.training.loop.plan import TrainerPlan
from spectra_nsa.training.loop.trainer import RunTrainer

_AT_A_TIME = 16  # sequences of the dev set


def masked_logits(
    model: SpectraForMaskedLM,
    passes: Sequence[dict[str, Tensor]],
    device: Any,
    routing: list[Mapping[str, Tensor]] | None = None,
    outputs: Sequence[str] = (),
) -> tuple[Tensor, Tensor]:
    """Returns logits (M, V) and ids (M,) of the masked tokens; only their states are projected onto the vocabulary.

    Args:
        model: the masked LM.
        passes: what `PackedSequences.batch` returns.
        device: where to compute.
        routing: receives the outputs of the routers in each pass; ``None`` if they are not wanted.
        outputs: their names.
    """
    states, targets = [], []
    for batch in passes:
        features = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
        labels_BT = features.pop("labels")
        found = model.model(**features, outputs=outputs)
        if routing is not None:
            routing.append({name: found[name] for name in outputs})
        hidden_BTD = found.last_hidden_state
        masked_BT = labels_BT != IGNORED
        states.append(hidden_BTD[masked_BT])
        targets.append(labels_BT[masked_BT])
    return model.lm_head(torch.cat(states)), torch.cat(targets)


class Perplexity:
    """exp of the mean cross-entropy of the masked tokens of held-out texts, whose masks never change.

    Args:
        sequences: the held-out texts.
        precision: see `resolve_precision`.
    """

    metric = "dev_perplexity"
    greater_is_better = False

    def __init__(self, sequences: PackedSequences, precision: str) -> None:
        self.sequences, self.precision = sequences, precision

    @torch.no_grad()
    def __call__(self, model: SpectraForMaskedLM) -> dict[str, float]:
        """Returns the figure by its name; the model stays in its mode."""
        training = model.training
        model.eval()
        device = model.device
        total, count = 0.0, 0
        with autocast(device.type, self.precision):
            for start in range(0, len(self.sequences), _AT_A_TIME):
                rows = range(start, min(start + _AT_A_TIME, len(self.sequences)))
                logits_MV, target_M = masked_logits(model, self.sequences.batch(rows, epoch=0), device)
                total += float(F.cross_entropy(logits_MV.float(), target_M, reduction="sum"))
                count += len(target_M)
        model.train(training)
        return {self.metric: math.exp(min(total / count, 700.0))}


class ShuffledOrder(Sampler[int]):
    """The indices of all sequences, in an order that seed and epoch decide."""

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed, self.epoch = size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        yield from torch.randperm(self.size, generator=generator).tolist()


class MaskedLMTrainer(RunTrainer):
    """Trains a masked LM: the mean cross-entropy over the masked tokens of the whole batch.

    Args:
        model: the masked LM in training.
        sentence_model: the sentence model of the same weights, with which a checkpoint is saved: it is a start, too.
        plan: the run.
        sequences: what it learns from.
        work: counts the tokens that go through the model.
        groups: the most forward passes a batch; see `group_documents`.
        routers: the terms of the routers of experts; ``None`` without experts.
        kwargs: see `Trainer`.
    """

    def __init__(
        self,
        model: SpectraForMaskedLM,
        sentence_model: SpectraSentenceTransformer,
        plan: TrainerPlan,
        *,
        sequences: PackedSequences,
        work: Work,
        groups: int | None,
        routers: RouterTerms | None = None,
        **kwargs: Any,
    ) -> None:
        self.sentence_model, self.sequences, self.work, self.groups = sentence_model, sequences, work, groups
        self.routers = routers
        super().__init__(
            model.spectra, plan, model=model, train_dataset=sequences, data_collator=_row_numbers, **kwargs
        )

    def _get_train_sampler(self, train_dataset: Any = None) -> ShuffledOrder:
        return ShuffledOrder(len(self.sequences), self.args.seed)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Returns the loss of this process's part of the batch, scaled so that the mean over processes is the batch's.

        Raises:
            NotFiniteError: it is NaN or infinite in any process.
        """
        if self.routers is not None:
            self.routers.step = self.state.global_step
        rows = inputs["rows"].tolist()
        passes = self.sequences.batch(rows, self._epoch, self.groups, self.work)
        inner = self.accelerator.unwrap_model(model)
        with autocast(self.args.device.type, self.plan.precision):
            routing: list[Mapping[str, Tensor]] | None = None if self.routers is None else []
            outputs = () if self.routers is None else self.routers.outputs
            logits_MV, target_M = masked_logits(inner, passes, self.args.device, routing, outputs)
            loss = F.cross_entropy(logits_MV.float(), target_M, reduction="sum")
        counts = [count for (count,) in processes.gather_counts([len(target_M)])]
        loss = loss * len(counts) / sum(counts)
        if self.routers is not None and routing is not None:
            loss = loss + self.routers(routing)
        if processes.any_process(not torch.isfinite(loss)):
            raise NotFiniteError("the masked-LM loss is not finite")
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        figures = self.routers.take_figures() if self.routers is not None and "loss" in logs else {}
        super().log({**logs, **figures}, start_time)

    def restore(self) -> None:
        super().restore()
        if self._resumed is not None and self.routers is not None:
            self.routers.restore(self._resumed.get("routers", {}))

    def _running_sums(self) -> dict[str, Any]:
        sums = super()._running_sums()
        return sums if self.routers is None else sums | {"routers": self.routers.state()}

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        save_masked_lm(self.accelerator.unwrap_model(self.model), self.sentence_model, Path(str(output_dir)))

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Measures the held-out perplexity, logs it and tells the callbacks."""
        assert self.plan.evaluator is not None
        metrics = {f"eval_{name}": value for name, value in self.plan.evaluator(self.model).items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def _row_numbers(rows: list[int]) -> dict[str, Tensor]:
    return {"rows": torch.tensor(rows)}
