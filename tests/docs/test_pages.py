"""The pages: every link leads somewhere, every page is on the site, and nothing names a private machine."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("log/*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    text = CODE.sub("", page.read_text(encoding="utf-8"))
    targets = [urlsplit(link) for link in LINK.findall(text)]
    missing = [
        link.path for link in targets if not link.scheme and link.path and not (page.parent / link.path).exists()
    ]
    assert not missing


def test_every_page_of_docs_is_in_the_navigation() -> None:
    listed = set(re.findall(r'"(docs/[\w/.-]+\.md)"', (ROOT / "zensical.toml").read_text(encoding="utf-8")))
    assert listed == {str(page.relative_to(ROOT)) for page in PAGES if page.is_relative_to(ROOT / "docs")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_names_a_private_machine(page: Path) -> None:
    assert not re.search(r"/(work|home|root|tmp)/\w", page.read_text(encoding="utf-8"))
