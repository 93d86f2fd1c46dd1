"""The shipped recipes of sparse encoders for code: each with a small model and small stand-ins of CoRNStack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from sentence_transformers import SparseEncoder

from spectra_nsa.config.recipe import load_recipe
from spectra_nsa.config.shipped import recipe_path
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.text.readers.cornstack import PUBLISHED
from spectra_nsa.training.run import train
from tests.builders import WORDS, tiny_masked_lm
from tests.text.readers.test_cornstack import write_shard

pytest.importorskip("spectra_nsa.training.jobs.sparse", reason="no job trains sparse encoders")


def rows_of(language: str) -> list[dict[str, Any]]:
    """Returns rows as nomic-ai/cornstack-LANG-v1 has them, one of them unranked."""
    generator = np.random.default_rng(PUBLISHED.index(language))

    def text(shared: list[str], words: int) -> str:
        return " ".join([*shared, *generator.choice(WORDS, words)])

    rows = []
    for number in range(40):
        shared = list(generator.choice(WORDS, 2, replace=False))
        row = {"query": text(shared, 5), "document": text(shared, 6), "negatives": [text([], 6), text([], 7)]}
        rows.append(row | {"document_score": "0.9", "document_rank": "-1" if number == 3 else "0"})
    return rows


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Puts a stand-in of each language in the place of the Hub; returns the files by name of the dataset."""
    files = {
        f"nomic-ai/cornstack-{language}-v1": str(write_shard(tmp_path / f"{language}.jsonl.gz", rows_of(language)))
        for language in PUBLISHED
    }
    real = datasets.load_dataset

    def load_dataset(path: str, name: str | None, *, split: str, streaming: bool) -> Any:
        if path not in files:
            raise datasets.exceptions.DatasetNotFoundError(f"Dataset '{path}' doesn't exist on the Hub")
        return real("json", data_files={"train": files[path]}, split=split, streaming=streaming)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return files


def few(folder: Path, name: str, *more: str) -> Any:
    model = folder / "masked-lm"
    start = model if model.is_dir() else tiny_masked_lm(model)
    short = ["train.max_steps=4", "train.batch=8", "train.log_every=1", "train.lr=1e-3", "data.dev_rows=8"]
    targets = ["sparse.query_active=6", "sparse.document_active=9", "sparse.calibrate=40", "sparse.highest_df=null"]
    return load_recipe(recipe_path(name), [f"model.start={start}", f"output={folder}/runs", *short, *targets, *more])


@pytest.mark.parametrize("name", ["quick_test", "development", "production"])
def test_a_recipe_trains_a_model_that_the_library_opens(name: str, tmp_path: Path, hub: dict[str, str]) -> None:
    result = train(few(tmp_path, name))
    assert result.steps == 4 and result.best.keys() == {"dev_ndcg@10"}
    lines = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "loss" in line]
    sets = {key for line in lines for key in line if key.startswith("loss_")}
    assert len(sets) > 1 if name != "quick_test" else not sets
    library = SparseEncoder(str(result.folder / "model"), device="cpu")
    assert library.encode_document(["open a file"]).shape[0] == 1


def test_a_language_that_is_missing_is_named(tmp_path: Path, hub: dict[str, str]) -> None:
    del hub["nomic-ai/cornstack-php-v1"]
    with pytest.raises(SpectraError, match=r"^data\.sets\.php: CoRNStack's php cannot be opened"):
        train(few(tmp_path, "development"))
