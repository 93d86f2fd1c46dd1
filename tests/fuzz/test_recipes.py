"""Recipes: YAML files, ``key=value`` overrides, and the small languages of options."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from spectra_nsa.config.ablation.parts import custom_variant
from spectra_nsa.config.recipe import Recipe, load_recipe
from spectra_nsa.evaluation.tasks import check_tasks
from spectra_nsa.text.columns import parse_columns
from spectra_nsa.text.sources import check_source
from spectra_nsa.training.checks import check_names, check_recipe
from tests.fuzz.law import cases, obeys
from tests.fuzz.mutations import PAYLOADS, VALUES, changed_bytes, changed_json

RECIPE: dict[str, Any] = {
    "name": "first",
    "model": {"start": "org/model", "attention": "spectral", "semantic_dims": [384, 128], "max_length": 128},
    "data": {"train": "pairs.jsonl", "columns": {"anchor": "title", "positive": "body"}, "dev": 0.1},
    "loss": {"terms": {"anchor": {"weight": 0.5}, "semantic": {"weight": 1}}},
    "distill": {"teachers": ["org/teacher"], "weight": 1.0},
    "train": {"lr": 1e-4, "epochs": 1, "batch": 16, "precision": "fp32", "warmup": 0.1},
    "monitor": {"health_every": 100},
    "backup": {"to": "backup"},
    "pretrain": None,
}
SETS: dict[str, Any] = {
    "data": {
        "sets": {
            "code": {"train": "cornstack:python", "limit": 10, "negatives": 1, "weight": 0.5, "group": "language"},
            "similar": {"train": "s.csv", "terms": ["cosent"], "prompts": {"query": "q: ", "document": ""}},
        },
        "mixing": "round_robin",
        "dev_rows": 10,
    },
    "train": {"batch": 16},
}
KEYS = [f"{section}.{key}" for section in ("model", "data", "loss", "distill", "train", "monitor", "backup", "pretrain")
        for key in Recipe().model_dump()[section] or {"steps": 1}]  # fmt: skip
WORDS = st.one_of(
    st.text(max_size=30),
    st.text(alphabet="=,: .~{}[]'\"\\/*&!|>%@`-#?\t\nabc019_" + string.ascii_letters[:3], max_size=40),
    st.sampled_from([payload.decode("utf-8", "surrogateescape") for payload in PAYLOADS]),
)
PAIRS = st.lists(st.tuples(st.sampled_from(["anchor", "positive", "text", "x"]), WORDS), max_size=4).map(
    lambda pairs: ",".join(f"{role}={column}" for role, column in pairs)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recipes")


def _load(folder: Path, data: bytes) -> None:
    path = folder / "recipe.yaml"
    path.write_bytes(data)
    recipe = obeys(lambda: load_recipe(path))
    if recipe is not None:
        obeys(lambda: (check_recipe(recipe), check_names(recipe)))
        path.write_bytes(recipe.to_yaml().encode("utf-8", "backslashreplace"))
        assert load_recipe(path) == recipe


@cases(30)
@given(data=changed_bytes(yaml.safe_dump(RECIPE, sort_keys=False).encode()))
@example(data=b"name: 2024-13-45")
@example(data=b"data: &a [*a]")
@example(
    data=b"a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
    + b"".join(b"%c: &%c [%s]\n" % (i, i, b", ".join([b"*%c" % (i - 1)] * 9)) for i in range(98, 110))
)
@example(data=b'data: {columns: "\\ud800"}')
def test_damaged_yaml(folder: Path, data: bytes) -> None:
    _load(folder, data)


@cases(30)
@given(value=changed_json(RECIPE))
def test_other_values(folder: Path, value: Any) -> None:
    _load(folder, yaml.safe_dump(value, sort_keys=False).encode())


@cases(30)
@given(value=changed_json(SETS))
def test_other_values_of_datasets(folder: Path, value: Any) -> None:
    _load(folder, yaml.safe_dump(value).encode("utf-8", "backslashreplace"))


@cases(40, share=1.5)
@given(key=st.one_of(st.sampled_from(KEYS), WORDS), value=st.one_of(WORDS, st.sampled_from([str(v) for v in VALUES])))
@example(key="train.lr", value=".inf")
@example(key="data.columns", value="[" * 5_000)
def test_overrides(key: str, value: str) -> None:
    obeys(lambda: load_recipe(None, [f"{key}={value}"]))


@cases(40, share=1.5)
@given(text=st.one_of(WORDS, PAIRS))
def test_columns(text: str) -> None:
    obeys(lambda: parse_columns(text))


@cases(40, share=1.5)
@given(text=WORDS)
@example(text="x" * 300)
@example(text="~nosuchuser/x")
def test_options(text: str) -> None:
    obeys(lambda: check_source(text))
    obeys(lambda: check_source(f"org/{text}"))
    obeys(lambda: check_tasks([text]))
    obeys(lambda: check_tasks([f"sts={text}"]))
    obeys(lambda: custom_variant(text))
    obeys(lambda: custom_variant(f"part:{text}"))
