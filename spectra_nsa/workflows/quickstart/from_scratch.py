"""`spectra quickstart --from-scratch`: a small model with its own vocabulary, and MiniLM as its teacher."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spectra_nsa.config.recipe import Recipe, with_values

SIZE = "nexus-mini"
VOCABULARY, LENGTH = 8_000, 128
SAMPLE = 8_000  # the vocabulary is trained on this many texts, or up to twice as many: more take too long
PAIRS_PER_MINUTE = 1_000  # so that the teacher encodes their texts in well under the available time
# Small batches mixed from all packages: an untrained model learns more from many steps than from hard negatives.
LEARNING = {"train.lr": 5e-4, "train.batch": 32, "train.epochs": 20, "data.group": None}


def pairs_within(minutes: float, rows: int) -> int:
    """Returns how many of `rows` pairs the teacher can encode within the time budget."""
    return min(rows, max(1_000, round(PAIRS_PER_MINUTE * minutes)))


def train_vocabulary(texts: Sequence[str], folder: Path) -> tuple[Path, int]:
    """Trains a tokenizer on texts.

    Args:
        texts: the training texts, of which a sample is used.
        folder: the run's folder; the tokenizer is written to its `tokenizer/`.

    Returns:
        the tokenizer's folder and its number of pieces.

    Raises:
        SpectraError: the texts yield too few pieces.
    """
    from spectra_nsa.tokens.train import TokenizerSpec, save_tokenizer, train_tokenizer

    sample = texts[:: max(1, len(texts) // SAMPLE)]
    tokenizer = train_tokenizer(sample, TokenizerSpec(vocab_size=VOCABULARY, max_length=LENGTH))
    save_tokenizer(tokenizer, folder / "tokenizer")
    return folder / "tokenizer", len(tokenizer)


def student_recipe(recipe: Recipe, tokenizer: Path, teacher: Path) -> Recipe:
    """Returns the recipe of a model from scratch that starts from the teacher's word vectors and learns its vectors."""
    model = {
        "model.start": None,
        "model.size": SIZE,
        "model.tokenizer": str(tokenizer),
        "model.token_vectors": str(teacher),
    }
    return with_values(recipe, {**model, **LEARNING, "distill.teachers": [str(teacher)]})
