"""What `spectra quickstart --from-scratch` does before it distils: a vocabulary, and a start pretrained on texts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from spectra_nsa.config.recipe import Recipe, load_recipe, with_values
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.files import atomic_write

SIZE = "nexus-mini"
VOCABULARY, LENGTH = 8_000, 128
PRETRAINING = 0.4  # share of the time for vocabulary and pretraining; the rest is the teacher's and the student's
PAIRS_A_MINUTE = 400  # a teacher encodes twice as many texts in well under the time that is left
DEV_TEXTS = 100
SHORTEST_FROM_SCRATCH = 120  # seconds below which vocabulary, pretraining and teacher leave nothing for the student
RATE = 5e-4  # a young model's; a trained checkpoint is moved more gently


def enough(rows: int, minutes: float) -> int:
    """How many of so many pairs a teacher can be asked about in that time."""
    return min(rows, max(1_000, round(PAIRS_A_MINUTE * minutes)))


def pretrained_start(
    texts: Sequence[str], folder: Path, *, deadline: float, say: Callable[[str], None]
) -> tuple[Path, dict[str, Any]]:
    """Trains a vocabulary and a masked LM on texts, and writes `texts.jsonl`, `tokenizer/` and `pretrained/`.

    Args:
        texts: what there is to read.
        folder: where these go.
        deadline: a `time.monotonic()` at which pretraining ends.
        say: called with a line at each stage.

    Returns:
        the pretrained model's folder; and pieces, pretraining_steps, and held-out perplexity before and after.

    Raises:
        SpectraError: the texts support too few pieces.
        KeyboardInterrupt: it was interrupted.
    """
    from spectra_nsa.models.tokenizer_train import TokenizerSpec, save_tokenizer, train_tokenizer
    from spectra_nsa.training.pretrain import pretrain

    with atomic_write(folder / "texts.jsonl") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
    words = train_tokenizer(texts, TokenizerSpec(vocab_size=VOCABULARY, max_length=LENGTH))
    save_tokenizer(words, folder / "tokenizer")
    say(f"vocabulary {len(words):,} pieces of its own")
    flags = {
        "name": "pretrained", "output": str(folder), "model.size": SIZE, "model.tokenizer": str(folder / "tokenizer"),
        "data.train": str(folder / "texts.jsonl"), "data.dev_rows": DEV_TEXTS, "train.batch": 32, "train.lr": 1e-3,
        "train.epochs": 3, "train.evaluate_every": 100_000, "train.checkpoint_every": 100_000,
    }  # fmt: skip
    result = pretrain(load_recipe(None, [], flags=flags), deadline=deadline)
    if result.interrupted:
        raise KeyboardInterrupt
    if not result.steps:
        raise SpectraError("there was no time for a step of pretraining. Give --minutes more.")
    before, after = result.start["dev_perplexity"], result.best.get("dev_perplexity", float("nan"))
    say(f"pretrained {result.steps} steps in {result.seconds:.0f} s, held-out perplexity {before:,.0f} to {after:,.0f}")
    facts = {"pieces": len(words), "pretraining_steps": result.steps, "perplexity": [before, after]}
    return result.folder / "model", facts


def student_of(recipe: Recipe, start: Path, teacher: Path) -> Recipe:
    """The recipe, from another start and with a teacher beside the pairs."""
    keys = {"model.start": str(start), "distill.teachers": [str(teacher)], "train.lr": RATE}
    return with_values(recipe, keys)
