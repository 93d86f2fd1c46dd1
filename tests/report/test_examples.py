from __future__ import annotations

from dataclasses import dataclass, field

from spectra_nsa.report.examples import DocumentLike, select_examples


@dataclass(frozen=True)
class Query:
    query: str
    rank: int | None
    wanted: list[str] = field(default_factory=lambda: ["answer"])
    retrieved: list[DocumentLike] = field(default_factory=list)


def system(*ranks: int | None) -> list[Query]:
    return [Query(f"q{at}", rank) for at, rank in enumerate(ranks)]


def test_groups_of_two_systems() -> None:
    examples = select_examples({"a": system(1, 1, 30, None, 2), "b": system(None, 3, 1, 50, 2)}, each=2)
    assert [(example.label, example.query) for example in examples] == [
        ("a ahead", "q0"),
        ("a ahead", "q1"),
        ("b ahead", "q2"),
        ("b ahead", "q3"),
        ("hard for both", "q3"),
    ]
    assert examples[0].wanted == "answer" and [name for name, _ in examples[0].by_system] == ["a", "b"]


def test_groups_of_one_system() -> None:
    examples = select_examples({"a": system(1, None, 5)}, each=1)
    assert [(example.label, example.query) for example in examples] == [
        ("not found first", "q1"),
        ("found first", "q0"),
    ]


def test_no_queries_give_no_examples() -> None:
    assert select_examples({}) == [] and select_examples({"a": []}) == []
