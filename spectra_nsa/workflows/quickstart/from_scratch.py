"""What `spectra quickstart --from-scratch` does differently: a vocabulary and a shape of its own, MiniLM as teacher."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spectra_nsa.config.recipe import Recipe, with_values

SIZE = "nexus-mini"
VOCABULARY, LENGTH = 8_000, 128
READ = 8_000  # texts at least, and not twice as many, that the vocabulary is learnt from: more take their time
PAIRS_A_MINUTE = 1_000  # a teacher encodes twice as many texts in well under the time that is left
SHORTEST_FROM_SCRATCH = 120  # seconds below which vocabulary and teacher leave nothing for the student
# Batches of 32 mixed from all packages: a young model learns more from many steps than from hard negatives.
LEARNING = {"train.lr": 5e-4, "train.batch": 32, "train.epochs": 20, "data.group": None}


def enough(rows: int, minutes: float) -> int:
    """How many of so many pairs a teacher can be asked about in that time."""
    return min(rows, max(1_000, round(PAIRS_A_MINUTE * minutes)))


def own_vocabulary(texts: Sequence[str], folder: Path) -> tuple[Path, int]:
    """Trains a tokenizer on texts.

    Args:
        texts: what there is to read.
        folder: `tokenizer/` is written there.

    Returns:
        the tokenizer's folder and its number of pieces.

    Raises:
        SpectraError: the texts support too few pieces.
    """
    from spectra_nsa.tokens.train import TokenizerSpec, save_tokenizer, train_tokenizer

    sample = texts[:: max(1, len(texts) // READ)]
    words = train_tokenizer(sample, TokenizerSpec(vocab_size=VOCABULARY, max_length=LENGTH))
    save_tokenizer(words, folder / "tokenizer")
    return folder / "tokenizer", len(words)


def student_of(recipe: Recipe, tokenizer: Path, teacher: Path) -> Recipe:
    """The recipe of a model from scratch that begins with the teacher's words and learns from its vectors besides."""
    own = {
        "model.start": None,
        "model.size": SIZE,
        "model.tokenizer": str(tokenizer),
        "model.token_vectors": str(teacher),
    }
    return with_values(recipe, {**own, **LEARNING, "distill.teachers": [str(teacher)]})
