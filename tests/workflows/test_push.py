"""A model is pushed to the Hub: what is uploaded, what the card says, and what the Hub may answer."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import huggingface_hub
import pytest
import yaml
from huggingface_hub import constants

import spectra_nsa as sp
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.workflows.hub.card import build_card
from spectra_nsa.workflows.hub.facts import collect_facts
from spectra_nsa.workflows.hub.push import check_repo, files_to_push, push


@pytest.fixture
def folder(make_bert: Callable[..., Path], tmp_path: Path) -> Path:
    sp.warm_start(make_bert()).save_pretrained(str(tmp_path / "saved"))
    return tmp_path / "saved"


class FakeHub:
    """Answers as the Hub does, and keeps what it was sent."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        self.created: dict[str, Any] = {}
        self.files: dict[str, bytes] = {}
        self.status = 200

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append((request.method, request.url.path))
        body = request.read()
        if self.status != 200:
            return httpx2.Response(self.status, json={"error": "no"}, request=request)
        path = request.url.path
        if path.endswith("/repos/create"):
            self.created = json.loads(body)
            answer: Any = {"url": "https://huggingface.co/me/model", "id": "1", "name": "me/model"}
        elif "/preupload/" in path:
            files = json.loads(body)["files"]
            kept = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]
            answer = {"files": kept}
        elif "/commit/" in path:
            for line in body.splitlines():
                if (entry := json.loads(line))["key"] == "file":
                    self.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            answer = {"success": True, "commitOid": "abc", "commitUrl": "https://huggingface.co/me/model/commit/abc"}
        else:
            answer = {"name": "me", "type": "user", "siblings": [], "id": "me/model"}
        return httpx2.Response(200, json=answer, request=request)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    hub = FakeHub()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    huggingface_hub.set_client_factory(lambda: httpx2.Client(transport=httpx2.MockTransport(hub)))
    yield hub
    huggingface_hub.set_client_factory(lambda: httpx2.Client())


def test_the_files_and_the_card_arrive(folder: Path, hub: FakeHub) -> None:
    (folder / "checkpoints" / "step-1").mkdir(parents=True)
    (folder / "checkpoints" / "step-1" / "model.safetensors").write_bytes(b"x")
    (folder / ".cache").write_text("x")
    files = files_to_push(folder)
    card = build_card(collect_facts(folder), "me/model", licence="apache-2.0", language="en")
    assert push("me/model", files, card).endswith("/commit/abc")
    assert hub.files.keys() == {"README.md", *(file.name for file in files)}
    assert hub.files["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert not [name for name in hub.files if "checkpoints" in name or name.startswith(".")]
    assert hub.created["visibility"] == "private" and hub.files["README.md"].decode() == card
    push("me/model", files, card, public=True)
    assert hub.created["visibility"] == "public"


@pytest.mark.parametrize(("status", "remedy"), [(401, "hf auth login"), (403, "right to write"), (500, "refused")])
def test_a_refusal_says_what_to_do(folder: Path, hub: FakeHub, status: int, remedy: str) -> None:
    hub.status = status
    with pytest.raises(SpectraError, match=remedy):
        push("me/model", files_to_push(folder)[:1], "card")


def test_what_should_not_be_published_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("x")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(SpectraError, match="leads out of the folder"):
        files_to_push(folder)
    (folder / "link.txt").unlink()
    (folder / "weights.bin").write_bytes(b"x")
    with pytest.raises(SpectraError, match="may be pickled"):
        files_to_push(folder)
    (folder / "weights.xml").write_text("<net/>")  # of OpenVINO
    assert "weights.bin" in [file.name for file in files_to_push(folder)]
    for name in ("model", "a/b/c", "me/", "me/a b"):
        with pytest.raises(UsageError, match="no name of a repository"):
            check_repo(name)


def test_the_card_says_what_is_known(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "first"
    run.mkdir(parents=True)
    folder.rename(run / "model")
    (tmp_path / "pairs.jsonl").write_text("{}")
    recipe = {"name": "first", "data": {"train": str(tmp_path / "pairs.jsonl")}, "model": {"start": "org/base"}}
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    lines = [
        {"step": 0, "time": 0.0, "started": {"precision": "bf16", "environment": {"cpus": 8, "torch": "2.13.0"}}},
        {"step": 90, "time": 7200.0, "eval_dev_ndcg@10": 0.5},
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    results = {"results": [{"name": "tldr", "metric": "ndcg@10", "value": 0.61, "ci": [0.58, 0.64], "n": 500}]}
    (tmp_path / "results.json").write_text(json.dumps(results))
    facts = collect_facts(run, results=[tmp_path / "results.json"], data_licences={"pairs.jsonl": "cc-by-4.0"})
    card = build_card(facts, "me/model", licence="mit")
    metadata = yaml.safe_load(card.split("---")[1])
    assert metadata["library_name"] == "sentence-transformers" and metadata["pipeline_tag"] == "sentence-similarity"
    assert metadata["license"] == "mit" and metadata["base_model"] == "org/base"
    assert metadata["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.61
    for words in ("cc-by-4.0", "90 steps in bf16 on 8 CPUs", "2.0 hours", "0.5800 to 0.6400", "dev", "not fitted"):
        assert words in card.partition("---\n\n")[2].replace("ndcg@10 0.5000", "dev"), words
    assert str(tmp_path) not in card
    with pytest.raises(UsageError, match="no such source"):
        collect_facts(run, data_licences={"other.jsonl": "mit"})
    with pytest.raises(SpectraError, match="no finished model"):
        collect_facts(tmp_path)
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(SpectraError, match="no results"):
        collect_facts(run, results=[tmp_path / "results.json"])
