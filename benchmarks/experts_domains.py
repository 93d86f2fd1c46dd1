"""Six domains of pairs that differ in form and content, for the experiments on experts.

| domain | query → document | source |
|---|---|---|
| medical | question → answer | MedQuAD, one question of five kinds |
| shell | description → command | tldr-pages |
| sql, csharp | title of a question → code of its answer | CodeNN |
| books | a sentence → its passage without it | public-domain books |
| mail | subject → message | 20 Newsgroups |

Training, dev and test never share a topic, a command, a book, a cluster of questions or a subject.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

DATA = Path(os.environ.get("SPECTRA_DATA", "../shared/data"))
CUT = 600  # characters of a document
_QUESTION = re.compile(
    r"(What is \(are\)|What are the symptoms of|What are the treatments for|What causes|How to diagnose) (.+?) ?\?"
)
Pair = tuple[str, str]


@dataclass(frozen=True)
class Domain:
    """The pairs of a domain.

    Attributes:
        train, dev, test: query and document.
        others: documents beside those of `test`, that its queries must not find.
    """

    train: list[Pair]
    dev: list[Pair]
    test: list[Pair]
    others: list[str]


def load_domains(train: int = 2400, dev: int = 200, test: int = 500, others: int = 500) -> dict[str, Domain]:
    """Reads all domains, with as many pairs of each.

    Raises:
        FileNotFoundError: a dataset is absent.
        SystemExit: a domain has too few pairs.
    """
    domains = {}
    for name, read in _READERS.items():
        pools: dict[str, list[Pair]] = {"train": [], "dev": [], "test": []}
        seen: set[str] = set()
        for split, pair in read():
            query, document = pair[0].strip(), pair[1].strip()[:CUT]
            if len(query) > 3 and len(document) > 3 and not {query.lower(), document} & seen:
                seen |= {query.lower(), document}
                pools[split].append((query, document))
        for pool in pools.values():
            random.Random(13).shuffle(pool)
        if len(pools["train"]) < train or len(pools["dev"]) < dev or len(pools["test"]) < test + others:
            raise SystemExit(f"{name} has only { {split: len(pool) for split, pool in pools.items()} } pairs.")
        domains[name] = Domain(
            pools["train"][:train],
            pools["dev"][:dev],
            pools["test"][:test],
            [document for _, document in pools["test"][test : test + others]],
        )
    return domains


def texts_of(name: str, split: str) -> list[str]:
    """Returns all texts of a domain's split, queries and documents, without repeats, in the order of the file.

    Training pairs that share a text with a pair of dev or test are left out, and dev pairs that share one with test.
    """
    found: dict[str, list[Pair]] = {"train": [], "dev": [], "test": []}
    for of, (query, document) in _READERS[name]():
        found[of].append((query.strip(), document.strip()[:CUT]))
    later = {"train": ("dev", "test"), "dev": ("test",), "test": ()}[split]
    seen = {text.lower() for of in later for pair in found[of] for text in pair}
    kept = [pair for pair in found[split] if not {text.lower() for text in pair} & seen]
    return list(dict.fromkeys(text for pair in kept for text in pair if len(text) > 3))


def _rows(name: str, split: str) -> Iterator[dict[str, Any]]:
    with gzip.open(DATA / name / f"{split}.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _split(topic: str, test: int = 0) -> str:
    """Returns the split of a topic: 1 in 10 topics are dev, and `test` more in 10 are test."""
    digit = int(sha256(topic.lower().encode()).hexdigest(), 16) % 10
    return "dev" if digit == 0 else "test" if digit <= test else "train"


def _medical() -> Iterator[tuple[str, Pair]]:
    for row in _rows("medquad", "train"):
        if match := _QUESTION.fullmatch(row["anchor"]):
            yield _split(match[2], test=2), (row["anchor"].replace("is (are)", "is"), row["positive"])


def _shell() -> Iterator[tuple[str, Pair]]:
    for row in _rows("tldr_commands", "train"):
        yield _split(row["command"]), (row["anchor"], row["positive"])
    for row in _rows("tldr_commands", "test"):
        yield "test", (row["anchor"], row["positive"])


def _questions(name: str) -> Iterator[tuple[str, Pair]]:
    for row in _rows(name, "train"):
        yield _split(row["cluster"]), (row["anchor"], row["positive"])
    for row in _rows(name, "test"):
        yield "test", (row["anchor"], row["positive"])


def _books() -> Iterator[tuple[str, Pair]]:
    for source in ("train", "dev"):
        for number, row in enumerate(_rows("classic_books", source)):
            text = re.sub(r"(?m)^(#|---).*\n?", "", row["text"])
            sentences = [part for part in re.split(r"(?<=[.!?])\s+", text)[:8] if part]
            long = [at for at, part in enumerate(sentences) if 6 <= len(part.split()) <= 30]
            if len(sentences) < 4 or not long:
                continue
            at = random.Random(number).choice(long)
            query = sentences.pop(at)
            yield _split(row["title"]) if source == "train" else "test", (query, " ".join(sentences))


def _mail() -> Iterator[tuple[str, Pair]]:
    for source in ("train", "test"):
        for row in _rows("newsgroups20", source):
            subject = re.sub(r"(?i)^\s*((re|fwd?)\s*:\s*)+", "", row["title"])
            if len(subject.split()) > 1 and len(row["text"]) > 80:
                yield _split(subject) if source == "train" else "test", (subject, row["text"])


_READERS = {
    "medical": _medical,
    "shell": _shell,
    "sql": lambda: _questions("codenn_sql"),
    "csharp": lambda: _questions("codenn_csharp"),
    "books": _books,
    "mail": _mail,
}
