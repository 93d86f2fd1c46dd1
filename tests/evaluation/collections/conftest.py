from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

Rows = Sequence[Mapping[str, Any]]

CORPUS = [{"_id": f"d{at}", "title": "", "text": text} for at, text in enumerate(("apple pie", "river stone", "cloud"))]
SMALL_QUERIES = [{"_id": "q0", "text": "apple"}, {"_id": "q1", "text": "stone river"}]
QRELS = [{"query-id": f"q{at}", "corpus-id": f"d{at}", "score": 1} for at in range(2)]


@pytest.fixture
def table(tmp_path: Path) -> Callable[[str, Rows], Path]:
    """Writes rows as Parquet or JSON Lines, as the name says, below `tmp_path`."""

    def write(name: str, rows: Rows) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".parquet"):
            pq.write_table(pa.Table.from_pylist(list(rows)), path)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write
