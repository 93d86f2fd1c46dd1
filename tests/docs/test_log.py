"""The log: every entry has its front matter, and LOG.md is the table of them."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLE = runpy.run_path(str(ROOT / "docs" / "log_table.py"))


@pytest.mark.parametrize("entry", sorted((ROOT / "log").glob("*.md")), ids=lambda entry: entry.stem)
def test_every_entry_has_its_front_matter(entry: Path) -> None:
    facts = TABLE["front_matter"](entry)
    assert facts["date"].isoformat()
    assert facts["question"].endswith("?")


def test_the_table_is_current() -> None:
    written = (ROOT / "LOG.md").read_text(encoding="utf-8")
    assert written == TABLE["log_page"](), "run python docs/log_table.py"


@pytest.mark.parametrize("text", ["# No front matter\n", "---\ndate: 2026-01-01\n---\n# Too little\n"])
def test_an_entry_without_front_matter_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "entry.md").write_text(text)
    with pytest.raises(ValueError, match="front matter that has date, question, verdict, figure, command"):
        TABLE["front_matter"](tmp_path / "entry.md")


def test_an_unknown_verdict_is_refused(tmp_path: Path) -> None:
    facts = "date: 2026-01-01\nquestion: Why?\nverdict: maybe\nfigure: 1\ncommand: ls\n"
    (tmp_path / "entry.md").write_text(f"---\n{facts}---\n# Title\n")
    with pytest.raises(ValueError, match="one of adopted, negative, open"):
        TABLE["front_matter"](tmp_path / "entry.md")
