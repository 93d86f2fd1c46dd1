"""Builds the documentation as a site: ``python docs/build.py [--serve]`` writes build/site.

The Markdown files are copied to build/docs, in their places, so that a link that works on GitHub works on the site.
What stands between ``<!-- generated: PART -->`` and ``<!-- end -->`` is written anew by docs/generate.py.
Zensical then builds the copy in strict mode: a dead link, a missing page or an unknown name in the reference fails.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from generate import PARTS, filled
from log_table import front_matter

ROOT = Path(__file__).resolve().parents[1]
COPY = ROOT / "build" / "docs"
PAGES = ("*.md", "LICENSE", "docs/**/*.md", "docs/images/*", "docs/site.css", "log/*.md")


def copy_pages() -> None:
    """Copies the pages to build/docs and fills their generated parts."""
    shutil.rmtree(COPY, ignore_errors=True)
    for pattern in PAGES:
        for page in ROOT.glob(pattern):
            target = COPY / page.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(page, target)
            if page.suffix == ".md":
                text = filled(page.read_text(encoding="utf-8"), PARTS)
                target.write_text(with_facts(page, text) if page.parent.name == "log" else text, encoding="utf-8")


def with_facts(entry: Path, text: str) -> str:
    """Returns a log entry with its front matter, which the site does not show, as a table below the title."""
    facts = front_matter(entry) | {"command": f"`{front_matter(entry)['command']}`"}
    first, *rest = (f"| {key} | {value} |" for key, value in facts.items())
    table = "\n".join([first, "|---|---|", *rest, ""])
    return re.sub(r"^(# .+)$", lambda title: f"{title[1]}\n\n{table}", text, count=1, flags=re.MULTILINE)


def main() -> int:
    """Builds the site and returns Zensical's exit status."""
    copy_pages()
    shutil.rmtree(ROOT / "build" / "site", ignore_errors=True)
    command = ["serve"] if "--serve" in sys.argv[1:] else ["build", "--strict", "--clean"]
    return subprocess.run([sys.executable, "-m", "zensical", *command], cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
