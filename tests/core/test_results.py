"""The one shape of results, as the JSON's readers see it."""

from __future__ import annotations

import datetime
import json

import numpy as np
import pytest

from spectra_nsa.core.results import SCHEMA, Result, environment, results_document

RESULT = Result(task="sts", name="dev", system="mine", metric="spearman", value=0.5, ci=(0.4, 0.6), n=10)


def test_the_keys_of_a_document_and_of_a_result() -> None:
    document = results_document([RESULT], model="runs/a/model", seconds=1.23456)
    assert list(document) == ["schema", "model", "created", "environment", "seconds", "results"]
    assert document["schema"] == SCHEMA == 1
    assert document["seconds"] == 1.235 and document["model"] == "runs/a/model"
    assert document["results"] == [
        {"task": "sts", "name": "dev", "system": "mine", "metric": "spearman", "value": 0.5, "ci": [0.4, 0.6], "n": 10}
    ]


def test_it_survives_json() -> None:
    without = Result(task="statistics", name="x", system="mine", metric="rankme", value=3.0, n=2)
    document = results_document([RESULT, without], model=None, seconds=0)
    assert json.loads(json.dumps(document)) == document
    assert document["model"] is None and document["results"][1]["ci"] is None


def test_extra_keys_stand_before_the_results() -> None:
    document = results_document([], model=None, seconds=0, notes=["a"])
    assert document["notes"] == ["a"] and list(document)[-1] == "results"


def test_created_is_a_moment_with_a_zone() -> None:
    created = datetime.datetime.fromisoformat(results_document([], model=None, seconds=0)["created"])
    assert created.tzinfo is not None
    assert abs((datetime.datetime.now(datetime.timezone.utc) - created).total_seconds()) < 60


def test_the_environment_names_what_a_figure_depends_on() -> None:
    found = environment()
    assert {"python", "platform", "cpus", "numpy", "torch", "transformers"} <= set(found)
    assert found["numpy"] == np.__version__


def test_a_result_is_frozen_and_takes_no_positions() -> None:
    with pytest.raises(AttributeError):
        RESULT.value = 1.0  # type: ignore[misc]
    with pytest.raises(TypeError):
        Result("sts", "dev", "mine", "spearman", 0.5, None, 10)  # type: ignore[misc]
