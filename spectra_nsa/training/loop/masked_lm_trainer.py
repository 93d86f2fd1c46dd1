"""The trainer of masked-LM pretraining, and its dev metric."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Sampler

from spectra_nsa.core import processes
from spectra_nsa.core.precision import autocast
from spectra_nsa.losses.stack import NotFiniteError
from spectra_nsa.models.masked_lm import save_masked_lm
from spectra_nsa.models.model import SpectraForMaskedLM
from spectra_nsa.models.sentence import SpectraSentenceTransformer
from spectra_nsa.tokens.length_batches import Work
from spectra_nsa.training.data.packing import IGNORED, Sequences
from spectra_nsa.training.loop.trainer import RunTrainer

_AT_A_TIME = 16  # sequences of the dev set


def guesses(model: SpectraForMaskedLM, passes: Sequence[dict[str, Tensor]], device: Any) -> tuple[Tensor, Tensor]:
    """Logits (M, V) and ids (M,) of the tokens to be guessed; only theirs are projected on the vocabulary.

    Args:
        model: see above.
        passes: of `Sequences.batch`.
        device: where to compute.
    """
    states, wanted = [], []
    for one in passes:
        given = {name: value.to(device, non_blocking=True) for name, value in one.items()}
        labels_BT = given.pop("labels")
        hidden_BTD = model.model(**given, outputs=()).last_hidden_state
        guessed_BT = labels_BT != IGNORED
        states.append(hidden_BTD[guessed_BT])
        wanted.append(labels_BT[guessed_BT])
    return model.lm_head(torch.cat(states)), torch.cat(wanted)


class Perplexity:
    """exp of the mean cross-entropy of the masked tokens of held-out texts, whose masks are always the same.

    Args:
        sequences: the held-out texts.
        precision: see `resolve_precision`.
    """

    metric = "dev_perplexity"

    def __init__(self, sequences: Sequences, precision: str) -> None:
        self.sequences, self.precision = sequences, precision

    @torch.no_grad()
    def __call__(self, model: SpectraForMaskedLM) -> dict[str, float]:
        """The figure by its name; the model's mode is as before."""
        training = model.training
        model.eval()
        device = model.device
        total, count = 0.0, 0
        with autocast(device.type, self.precision):
            for start in range(0, len(self.sequences), _AT_A_TIME):
                rows = range(start, min(start + _AT_A_TIME, len(self.sequences)))
                logits_MV, wanted_M = guesses(model, self.sequences.batch(rows, epoch=0), device)
                total += float(F.cross_entropy(logits_MV.float(), wanted_M, reduction="sum"))
                count += len(wanted_M)
        model.train(training)
        return {self.metric: math.exp(min(total / count, 700.0))}


class Order(Sampler[int]):
    """All sequences, in an order that seed and epoch decide."""

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed, self.epoch = size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        yield from torch.randperm(self.size, generator=generator).tolist()


class Pretrainer(RunTrainer):
    """Learns to guess masked tokens: mean cross-entropy over those of the whole batch."""

    groups: int | None = None  # the most passes a batch; see `by_length`
    precision = "fp32"
    around: SpectraSentenceTransformer  # the sentence model of the same weights: a checkpoint is a start, too

    def __init__(self, sequences: Sequences, **kwargs: Any) -> None:
        super().__init__(train_dataset=sequences, data_collator=_rows, **kwargs)
        self.sequences = sequences
        self.work = Work()

    def _get_train_sampler(self, train_dataset: Any = None) -> Order:
        return Order(len(self.sequences), self.args.seed)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Of this process's part of the batch, such that the mean over the processes is that of the whole batch.

        Raises:
            NotFiniteError: it is not a number, in any process.
        """
        rows = inputs["rows"].tolist()
        passes = self.sequences.batch(rows, self._epoch, self.groups, self.work)
        inner = self.accelerator.unwrap_model(model)
        with autocast(self.args.device.type, self.precision):
            logits_MV, wanted_M = guesses(inner, passes, self.args.device)
            loss = F.cross_entropy(logits_MV.float(), wanted_M, reduction="sum")
        counts = [count for (count,) in processes.everyones([len(wanted_M)])]
        loss = loss * len(counts) / sum(counts)
        if processes.anyone(not torch.isfinite(loss)):
            raise NotFiniteError("the masked-LM loss is not finite")
        return loss

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        save_masked_lm(self.accelerator.unwrap_model(self.model), self.around, Path(str(output_dir)))

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The held-out perplexity, logged and handed to whoever waits for it."""
        metrics = {f"eval_{name}": value for name, value in self.evaluator(self.model).items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def _rows(rows: list[int]) -> dict[str, Tensor]:
    return {"rows": torch.tensor(rows)}
