"""The examples of the pages: existing commands, options and recipe keys, existing names in Python code."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.test_main import FLAGS
from tests.docs.test_pages import PAGES, ROOT
from tests.docs.test_reference import RECIPE

KEYS = set(re.findall(r"`([a-z0-9_.]+)`", RECIPE))
ENTRY_KEYS = {"weight", "start", "ramp", "train_encoder", "margin"}
GUIDES = [page for page in PAGES if page.name != "CHANGELOG.md"]


def blocks(page: Path, *languages: str) -> Iterator[str]:
    """Yields the blocks of code in some languages, `""` for none."""
    text = page.read_text(encoding="utf-8")
    for _, language, block in re.findall(r"^( *)```(\w*)\n(.*?)^ *```$", text, flags=re.DOTALL | re.MULTILINE):
        if language in languages:
            yield block


def commands(page: Path) -> Iterator[list[str]]:
    """Yields the words after `spectra` of each command in the page's blocks of code."""
    for block in blocks(page, "", "bash", "text"):
        for line in block.replace("\\\n", " ").splitlines():
            found = re.match(r"(?:\$ |!)?(?:(?:torchrun|accelerate launch).* -m spectra_nsa|spectra) (.+)", line)
            if found and " - " not in line:
                yield shlex.split(found[1], comments=True)


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_use_verbs_and_options_that_exist(page: Path) -> None:
    for words in commands(page):
        verb = words[0] if words[0] in FLAGS else " ".join(words[:2])
        assert verb in FLAGS, words
        unknown = [word for word in words if word.startswith("-") and word not in FLAGS[verb].split()]
        assert not unknown, words


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_use_recipe_keys_that_exist(page: Path) -> None:
    for words in commands(page):
        for word in words:
            key = re.match(r"((?:model|data|loss|distill|train|watch|backup|pretrain|sparse)\.[a-z0-9_.]+)=", word)
            if key:
                entry, _, last = re.sub(r"^data\.sets\.\w+\.", "data.", key[1]).rpartition(".")
                assert f"{entry}.{last}" in KEYS or (entry in KEYS and last in ENTRY_KEYS), words


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_code_imports_names_that_exist(page: Path) -> None:
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("spectra_nsa"):
                module = importlib.import_module(str(node.module))
                assert all(hasattr(module, name.name) for name in node.names), ast.unparse(node)
