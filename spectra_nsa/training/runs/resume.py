"""What has to be the same for a run to go on, and what a checkpoint keeps beside transformers' state."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from spectra_nsa.config.recipe import Recipe
from spectra_nsa.core.checksums import read_manifest
from spectra_nsa.core.errors import UsageError
from spectra_nsa.core.files import read_json

if TYPE_CHECKING:
    from spectra_nsa.models.config import SpectraConfig
    from spectra_nsa.models.sentence import SpectraSentenceTransformer
    from spectra_nsa.training.data.rows import TrainingData

RUNNING = "running.pt"  # sums that the next line of metrics.jsonl needs, and the place in the data
_SAMPLE = 1_000  # rows that stand for all, in the digest
# Fields of the config that say nothing of the weights' shape: they may change, and the recipe's count.
_FREE = {
    "transformers_version", "architectures", "dtype", "use_cache", "initializer_range", "max_length",
    "hidden_dropout_prob", "attention_probs_dropout_prob",
}  # fmt: skip


def facts_of(recipe: Recipe, data: TrainingData) -> dict[str, Any]:
    """What decides which rows a step sees: kept in each checkpoint's manifest.

    The digest is of at most 1,000 rows, evenly spaced, so that it costs nothing on large data.
    """
    rows = len(data.train)
    places = sorted({place * rows // _SAMPLE for place in range(_SAMPLE)})
    sample = {name: list(data.train[places][name]) for name in data.train.column_names}
    groups = None if data.groups is None else [data.groups[place] for place in places]
    text = json.dumps([sample, groups], sort_keys=True)
    return {
        "train.batch": recipe.train.batch,
        "train.accumulation": recipe.train.accumulation,
        "train.seed": recipe.train.seed,
        "data.group": recipe.data.group,
        "rows": rows,
        "sample": hashlib.sha256(text.encode()).hexdigest(),
    }


def check_same(checkpoint: Path, recipe: Recipe, model: SpectraSentenceTransformer, data: TrainingData) -> None:
    """Refuses a checkpoint of another model or of other data, before anything is trained.

    Raises:
        UsageError: the message names what differs.
    """
    check_alike(checkpoint, model.spectra.config, model.tokenizer, facts_of(recipe, data))


def check_alike(
    checkpoint: Path, config: SpectraConfig, tokenizer: Any, now: dict[str, Any], verb: str = "train"
) -> None:
    """As `check_same`, of what is compared there.

    Args:
        checkpoint: where to go on.
        config: of the model that is to go on.
        tokenizer: the same model's.
        now: what decides which rows a step sees, as the trainer's `facts`.
        verb: the command that starts from a checkpoint's weights.

    Raises:
        UsageError: see there.
    """
    apart = [*_model_differences(checkpoint, config), *_tokenizer_differences(checkpoint, tokenizer)]
    if apart:
        raise UsageError(
            f"{checkpoint} is of another model than the recipe's: {'; '.join(apart)}. Leave the recipe's model "
            "section as it was; for another model start another run."
        )
    then = read_manifest(checkpoint).get("run", {})
    changed = [f"{key} was {then[key]}, is {now[key]}" for key in now if key in then and then[key] != now[key]]
    if any(not change.startswith(("rows", "sample")) for change in changed):
        changed = [change for change in changed if not change.startswith(("rows", "sample"))]  # what follows from it
    if changed:
        told = ["the rows are others (as many)" if one.startswith("sample") else one for one in changed]
        if len(told) > 1 and changed[-1].startswith("sample"):
            told.pop()
        raise UsageError(
            f"{checkpoint} cannot be gone on from: {'; '.join(told)}. Its place in the data would be another. Set it "
            f"back, or start another run from its weights: spectra {verb} --model {checkpoint}"
        )


def _model_differences(checkpoint: Path, config: SpectraConfig) -> list[str]:
    then = read_json(checkpoint / "config.json")
    now = json.loads(config.to_json_string(use_diff=False))
    return [
        f"{name} was {then[name]}, is {now[name]}"
        for name in sorted(set(then) & set(now) - _FREE)
        if then[name] != now[name] and not name.startswith("_")
    ]


def _tokenizer_differences(checkpoint: Path, tokenizer: Any) -> list[str]:
    """Whether the same text has other ids, which vocabularies of one size do not show; cutting and padding aside."""
    file = checkpoint / "tokenizer.json"
    if not file.is_file():
        return []
    then, now = read_json(file), json.loads(tokenizer.backend_tokenizer.to_str())
    alike = all(then.get(part) == now.get(part) for part in {*then, *now} - {"truncation", "padding"})
    return [] if alike else ["its tokenizer has other pieces or rules (model.tokenizer, or the files of model.start)"]


def save_running(checkpoint: Path, values: dict[str, Any]) -> None:
    """Keeps numbers and tensors (no other objects) in a checkpoint."""
    torch.save(values, checkpoint / RUNNING)


def load_running(checkpoint: Path) -> dict[str, Any]:
    """What `save_running` kept."""
    return torch.load(checkpoint / RUNNING, map_location="cpu", weights_only=True)


def refit_schedule(optimizer: Any, scheduler: Any, fresh: list[dict[str, Any]]) -> None:
    """Lets the recipe's learning rate, weight decay and length of schedule count from the checkpoint's step on.

    The learning rate at step t of a run that goes on is what it would have been at t had the recipe been so from the
    start; with an unchanged recipe that is, bit for bit, what the checkpoint holds.

    Args:
        optimizer: with the checkpoint's state.
        scheduler: a `LambdaLR` with the checkpoint's state; its functions are the recipe's.
        fresh: the optimiser's groups before the checkpoint's state came.
    """
    scheduler.base_lrs = [group["initial_lr"] for group in fresh]
    factors = [function(scheduler.last_epoch) for function in scheduler.lr_lambdas]
    for group, was, factor in zip(optimizer.param_groups, fresh, factors, strict=True):
        group["initial_lr"], group["weight_decay"] = was["initial_lr"], was["weight_decay"]
        group["lr"] = was["initial_lr"] * factor
    scheduler._last_lr = [group["lr"] for group in optimizer.param_groups]
