"""Fixtures of the model tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.builders import bert_folder


@pytest.fixture
def make_bert(tmp_path: Path) -> Callable[..., Path]:
    return lambda **options: bert_folder(tmp_path, **options)
