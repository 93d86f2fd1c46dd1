"""What the tests of training start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders import bert_folder


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny BERT checkpoint."""
    return bert_folder(tmp_path_factory.mktemp("bert"))
