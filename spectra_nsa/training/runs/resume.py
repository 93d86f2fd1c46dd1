"""What must be unchanged for a run to resume, and what a checkpoint keeps beside transformers' state."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from spectra_nsa.config.recipe import Recipe
from spectra_nsa.core.checksums import read_manifest
from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.core.files import read_json_object

if TYPE_CHECKING:
    from spectra_nsa.models.config import SpectraConfig
    from spectra_nsa.training.data.rows import TrainingData

_NONE = type(None)
_SUMS = {"epoch": int, "batches": int, "batches_in_epoch": int, "loss": torch.Tensor, "logged": int, "skipped": int,
         "skipped_in_a_row": int}  # fmt: skip
_STATE: dict[str, tuple[type, ...]] = {
    "global_step": (int,), "epoch": (int, float, _NONE), "max_steps": (int,), "log_history": (list,),
    "best_global_step": (int, _NONE), "best_metric": (int, float, _NONE), "best_model_checkpoint": (str, _NONE),
}  # fmt: skip
RUNNING = "running.pt"  # the sums that the next line of metrics.jsonl needs, and the position in the data
_SAMPLE = 1_000  # rows that the digest reads
# Fields of the config that do not affect the weights' shapes: they may change, and the recipe's values apply.
_FREE = {
    "transformers_version", "architectures", "dtype", "use_cache", "initializer_range", "max_length",
    "hidden_dropout_prob", "attention_probs_dropout_prob", "tie_word_embeddings",
}  # fmt: skip


def row_facts(recipe: Recipe, data: TrainingData) -> dict[str, Any]:
    """Returns what decides which rows a step reads: kept in each checkpoint's manifest.

    The digest is of at most 1,000 evenly spaced rows of a dataset, so that it costs nothing on large data.
    """
    samples = {name: _sample(part) for name, part in data.parts.items()}
    text = json.dumps(samples if data.sets else samples[""], sort_keys=True)
    facts: dict[str, Any] = {
        "train.batch": recipe.train.batch,
        "train.accumulation": recipe.train.accumulation,
        "train.seed": recipe.train.seed,
        "data.group": recipe.data.group,
        "rows": len(data.train),
        "sample": hashlib.sha256(text.encode()).hexdigest(),
    }
    if data.sets:
        sets = recipe.data.sets or {}
        facts["data.mixing"] = recipe.data.mixing
        facts["data.sets"] = [
            f"{name} with {counted(len(part.train), 'row')}, weight {sets[name].weight:g}, group {sets[name].group}"
            for name, part in data.sets.items()
        ]
    return facts


def _sample(data: TrainingData) -> list[Any]:
    """Returns evenly spaced rows and their groups."""
    rows = len(data.train)
    indices = sorted({number * rows // _SAMPLE for number in range(_SAMPLE)})
    sample = {name: list(data.train[indices][name]) for name in data.train.column_names}
    return [sample, None if data.groups is None else [data.groups[index] for index in indices]]


def check_resumable(
    checkpoint: Path,
    config: SpectraConfig,
    tokenizer: Any,
    facts: Mapping[str, Any],
    command: str,
    *,
    config_file: Path | None = None,
) -> None:
    """Checks that a checkpoint is of the same model and data as the run that resumes from it.

    Args:
        checkpoint: where to resume.
        config: of the recipe's model.
        tokenizer: of the recipe's model.
        facts: what decides which rows a step reads.
        command: the command that starts a new run from a checkpoint's weights.
        config_file: the checkpoint's config; ``None`` for its `config.json`.

    Raises:
        UsageError: the message names what differs.
        SpectraError: the state of its trainer is damaged.
    """
    check_state(checkpoint)
    differences = [
        *_model_differences(config_file or checkpoint / "config.json", config),
        *_tokenizer_differences(checkpoint, tokenizer),
    ]
    if differences:
        raise UsageError(
            f"{checkpoint} holds a model different from the recipe's: {'; '.join(differences)}. Set the recipe's "
            "model section back; for a different model, start a new run."
        )
    then = read_manifest(checkpoint).get("run", {})
    changed = {
        key: f"{key} was {then[key]}, is {facts[key]}" for key in facts if then.get(key, facts[key]) != facts[key]
    }
    if settings := {key: change for key, change in changed.items() if key not in ("rows", "sample")}:
        changed = settings  # other rows are only their consequence
    if "sample" in changed:
        changed["sample"] = "the data has as many rows, but different ones"
        if len(changed) > 1:
            del changed["sample"]
    if changed:
        raise UsageError(
            f"cannot resume from {checkpoint}: {'; '.join(changed.values())}. The position in the data would not be "
            f"the same. Set it back, or start a new run from its weights: spectra {command} --model {checkpoint}"
        )


def _model_differences(config_file: Path, config: SpectraConfig) -> list[str]:
    then = read_json_object(config_file)
    now = json.loads(config.to_json_string(use_diff=False))
    return [
        f"{name} was {then[name]}, is {now[name]}"
        for name in sorted(set(then) & set(now) - _FREE)
        if then[name] != now[name] and not name.startswith("_")
    ]


def _tokenizer_differences(checkpoint: Path, tokenizer: Any) -> list[str]:
    """Compares the tokenizers except for truncation and padding: those of one size may give different ids."""
    file = checkpoint / "tokenizer.json"
    if not file.is_file():
        return []
    then, now = read_json_object(file), json.loads(tokenizer.backend_tokenizer.to_str())
    if all(then.get(part) == now.get(part) for part in {*then, *now} - {"truncation", "padding"}):
        return []
    return ["its tokenizer has different pieces or rules (model.tokenizer, or the files of model.start)"]


def save_running_sums(checkpoint: Path, values: dict[str, Any]) -> None:
    """Writes numbers and tensors (no other objects) into a checkpoint."""
    torch.save(values, checkpoint / RUNNING)


def load_running_sums(checkpoint: Path) -> dict[str, Any]:
    """Returns what `save_running_sums` wrote. Nothing is unpickled but numbers and tensors.

    Raises:
        SpectraError: the file is missing, damaged or of another kind.
    """
    path = checkpoint / RUNNING
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises any of them
        raise _damaged(path, (str(error).splitlines() or [type(error).__name__])[0][:200]) from error
    if not isinstance(values, dict):
        raise _damaged(path, "it holds no numbers by name")
    for name, kind in _SUMS.items():
        if type(values.get(name)) is not kind:
            raise _damaged(path, f"it has no valid {name}")
    return values


def check_state(checkpoint: Path) -> None:
    """Checks that a checkpoint has a state of transformers' trainer.

    Raises:
        SpectraError: it is missing, damaged, or of another version of transformers.
    """
    path = checkpoint / TRAINER_STATE_NAME
    state = read_json_object(path)
    if unknown := state.keys() - {field.name for field in dataclasses.fields(TrainerState)}:
        raise _damaged(path, f"this version of transformers has no {min(unknown)!r}")
    for name, kinds in _STATE.items():
        value = state.get(name)
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise _damaged(path, f"its {name} is {value!r}")


def _damaged(path: Path, problem: str) -> SpectraError:
    return SpectraError(f"{path} is damaged: {problem}. Resume from an earlier checkpoint.")


def set_epoch(loader: Any, epoch: int) -> None:
    """Tells every sampler of a loader the epoch. In a resumed run of several processes the libraries miss some."""
    sampler = getattr(loader, "batch_sampler", None)
    while sampler is not None:
        for found in (sampler, getattr(sampler, "sampler", None)):
            if found is not None and hasattr(found, "set_epoch"):
                found.set_epoch(epoch)
        sampler = getattr(sampler, "batch_sampler", None)


def refit_schedule(optimizer: Any, scheduler: Any, fresh: list[dict[str, Any]]) -> None:
    """Applies the recipe's learning rate, weight decay and schedule length from the checkpoint's step on.

    The learning rate at step t of a resumed run is what it would have been had the recipe been the same from the
    start. With an unchanged recipe that is, bit for bit, what the checkpoint holds.

    Args:
        optimizer: with the checkpoint's state.
        scheduler: a `LambdaLR` with the checkpoint's state and the recipe's functions.
        fresh: the optimizer's groups before the checkpoint was loaded.
    """
    scheduler.base_lrs = [group["initial_lr"] for group in fresh]
    factors = [function(scheduler.last_epoch) for function in scheduler.lr_lambdas]
    for group, original, factor in zip(optimizer.param_groups, fresh, factors, strict=True):
        group["initial_lr"], group["weight_decay"] = original["initial_lr"], original["weight_decay"]
        group["lr"] = original["initial_lr"] * factor
    scheduler._last_lr = [group["lr"] for group in optimizer.param_groups]
