"""The texts of `sparse_search.py`: passages of 40 words from the shared text collections, and real questions.

This file is not a command.
"""

from __future__ import annotations

import random
from pathlib import Path

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.text.corpus import Corpus
from spectra_nsa.text.sources import load_source

PASSAGES = ("classic_books", "newsgroups20", "peps_rfcs", "medquad")
QUESTIONS = ("medquad", "query_wellformedness")
WORDS = 40  # about 55 tokens


def benchmark_texts(data: Path, documents: int, queries: int) -> tuple[list[str], list[str]]:
    """Returns distinct passages and distinct questions, drawn at random (seed 0).

    Args:
        data: the folder of the text collections.
        documents: number of passages.
        queries: number of questions.

    Raises:
        SpectraError: the collections are too small.
    """
    passages: dict[str, None] = {}
    for name in PASSAGES:
        for text in Corpus([data / name / "train.jsonl.gz"]):
            words = text.split()
            for start in range(0, max(1, len(words) - WORDS // 2), WORDS):
                passages.setdefault(" ".join(words[start : start + WORDS]))
    questions: dict[str, None] = {}
    for name in QUESTIONS:
        rows = load_source(data / name / "train.jsonl.gz").dataset
        questions.update(dict.fromkeys(rows["anchor" if "anchor" in rows.column_names else "text"]))
    for question in questions:
        passages.pop(question, None)
    if len(passages) < documents or len(questions) < queries:
        raise SpectraError(f"{data} has {len(passages):,} passages and {len(questions):,} questions: ask for fewer.")
    draw = random.Random(0)
    return draw.sample(list(passages), documents), draw.sample(list(questions), queries)
