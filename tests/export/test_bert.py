"""Plain BERT folders: they give the model's vectors without our package."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import spectra_nsa as sp
from spectra_nsa.core.errors import UsageError
from spectra_nsa.models.fresh import fresh_model

TEXTS = ["open a file", "", "sort the list of tokens and write the text to a file " * 3, "x", "def read(file): return"]
CASES = [
    {},
    {"pooling": "cls"},
    {"pooling": ("mean", "max")},
    {"dense": 16, "activation": torch.nn.Identity()},
    {"prompts": {"query": "open the file: ", "document": ""}, "include_prompt": False},
]

WITHOUT_PACKAGE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "spectra_nsa":
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import numpy as np
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1], device="cpu")
np.save(sys.argv[2], model.encode_query({texts!r}))
"""


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(case) or "plain")
def test_an_exported_folder_opens_without_our_package(
    make_bert: Callable[..., Path], tmp_path: Path, case: dict
) -> None:
    model = sp.warm_start(make_bert(**case))
    sp.export_bert(model, tmp_path / "plain")
    types = [module["type"] for module in json.loads((tmp_path / "plain/modules.json").read_text())]
    assert all(name.startswith("sentence_transformers.models.") for name in types), "versions before 6 know no others"
    script = WITHOUT_PACKAGE.format(texts=TEXTS)
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "plain"), str(tmp_path / "v.npy")], check=True)
    assert np.abs(np.load(tmp_path / "v.npy") - model.encode_query(TEXTS)).max() <= 1e-6


def test_a_model_that_bert_cannot_express_is_refused(tmp_path: Path, minilm: Path) -> None:
    model = fresh_model("small", tokenizer=str(minilm), position="rope")
    with pytest.raises(ValueError, match="position: rope"):
        sp.export_bert(model, tmp_path / "plain")


def test_an_export_replaces_an_export_but_no_spectra_model(make_bert: Callable[..., Path], tmp_path: Path) -> None:
    model = sp.warm_start(make_bert())
    model.save_pretrained(str(tmp_path / "saved"))
    weights = (tmp_path / "saved" / "model.safetensors").read_bytes()
    with pytest.raises(UsageError, match="holds a Spectra model"):
        sp.export_bert(model, tmp_path / "saved")
    assert (tmp_path / "saved" / "model.safetensors").read_bytes() == weights
    for _ in range(2):
        sp.export_bert(model, tmp_path / "plain")
