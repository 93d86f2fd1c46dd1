"""`codes fit` and `anomaly fit`: folders, figures and refusals."""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import spectra_nsa as sp
from spectra_nsa.cli.main import app
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.heads.anchors import AnchorHead
from spectra_nsa.heads.bridge import HashBridge
from spectra_nsa.heads.fit_anchors import fit_anchors
from spectra_nsa.heads.fit_anomaly import fit_anomaly
from spectra_nsa.heads.fit_codes import fit_codes
from spectra_nsa.workflows.fit import code_recall, excerpts, fit_anomaly_on, fit_codes_on
from tests.builders import WORDS, bert_folder


def clustered(n: int, size: int = 48, centres: int = 12, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    middle = torch.randn(centres, size, generator=torch.Generator().manual_seed(99))
    which = torch.randint(centres, (n,), generator=generator)
    points = middle[which] + 0.7 * torch.randn(n, size, generator=generator)
    return torch.nn.functional.normalize(points, dim=-1)


def test_fitted_codes_find_more_neighbors_and_nest() -> None:
    vectors = clustered(1_500)
    torch.manual_seed(0)
    bridge = HashBridge(48 + 24, 48)
    asked = clustered(300, seed=1)
    before = code_recall(bridge, (vectors, vectors), (asked, asked))
    fit_codes(bridge, (vectors, vectors), steps=60)
    after = code_recall(bridge, (vectors, vectors), (asked, asked))
    for width in ("64", "128", "256"):
        assert after[width]["asymmetric"] >= after[width]["symmetric"]
    assert after["64"]["symmetric"] > before["64"]["symmetric"] + 0.01
    # More than 48 orthogonal directions leave nothing to gain in 48 dimensions.
    assert after["128"]["symmetric"] > 0.99 and after["256"]["symmetric"] > 0.99
    assert after["64"]["symmetric"] <= after["128"]["symmetric"] + 0.01 <= after["256"]["symmetric"] + 0.02
    decoded = bridge.decode(torch.where(bridge(vectors) > 0, 1.0, -1.0))
    assert torch.cosine_similarity(decoded, vectors).mean() > 0.9


def test_too_few_texts_are_refused() -> None:
    with pytest.raises(SpectraError, match="at least 512"):
        fit_codes(HashBridge(72, 48), (clustered(100), clustered(100)))
    with pytest.raises(SpectraError, match="at least 20"):
        fit_anomaly(clustered(10))
    with pytest.raises(SpectraError, match="at least 190 texts"):  # 1 / (n + 1) is never below the level
        fit_anomaly(clustered(60))
    with pytest.raises(UsageError, match="too many"):
        fit_anomaly(clustered(1_200), prototypes=900)
    with pytest.raises(UsageError, match=r"at least 1,000"):
        fit_anomaly(clustered(300), prototypes=16)


def test_only_a_model_folder_is_replaced(tmp_path: Path, make_bert: Callable[..., Path]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    (tmp_path / "pairs.csv").write_text("a,b")
    for name in ("mine", "pairs.csv"):
        with pytest.raises(UsageError, match="would be lost"):
            fit_codes_on("any", ["a"], output=tmp_path / name, say=print)
        with pytest.raises(UsageError, match="would be lost"):
            sp.export_bert(sp.warm_start(make_bert()), tmp_path / name)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"
    (tmp_path / "empty").mkdir()
    sp.export_bert(sp.warm_start(make_bert()), tmp_path / "empty")
    sp.export_bert(sp.warm_start(make_bert()), tmp_path / "empty")


@pytest.mark.parametrize(("n", "method"), [(4_000, "prototypes"), (300, "density")])
def test_the_anomaly_score_separates_other_texts_and_its_p_value_is_calibrated(n: int, method: str) -> None:
    fit = fit_anomaly(clustered(n))
    assert fit.head.method == method
    normal = clustered(2_000, seed=5)
    strange = torch.nn.functional.normalize(
        torch.randn(500, 48, generator=torch.Generator().manual_seed(7)) + 0.5, dim=-1
    )
    with torch.no_grad():
        inside, outside = fit.head(normal), fit.head(strange)
        false_alarms = float((fit.head.p_value(inside) <= 0.05).float().mean())
    assert float((outside[:, None] > inside[None, :]).float().mean()) > 0.95
    assert false_alarms == pytest.approx(0.05, abs=0.05 if method == "density" else 0.025)


def near_copies(texts: int, spread: float, sentences: int = 20, size: int = 48) -> torch.Tensor:
    """Returns the vectors of a few sentences in many spellings that a model can hardly tell apart."""
    generator = torch.Generator().manual_seed(0)
    points = clustered(sentences, size)[torch.arange(texts) % sentences]
    return torch.nn.functional.normalize(points + spread * torch.randn(texts, size, generator=generator), dim=-1)


@pytest.mark.parametrize("sentences", [1, 20])
@pytest.mark.parametrize("spread", [0, 1e-7, 1e-4])
def test_near_copies_are_fitted_by_their_density(sentences: int, spread: float) -> None:
    vectors = near_copies(1_200, spread, sentences)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as of fewer distinct points than clusters
        fit = fit_anomaly(vectors)
    assert fit.head.method == "density" and fit.false_alarms <= 0.1
    with torch.no_grad():
        known, strange = fit.head(vectors), fit.head(clustered(200, seed=9))
    assert known.isfinite().all() and strange.isfinite().all()
    assert 0 <= known.std() < 1 and strange.median() > known.max() + 1


def test_more_prototypes_than_distinct_vectors_are_refused() -> None:
    with pytest.raises(UsageError, match="960 texts only 20 distinct vectors"):
        fit_anomaly(near_copies(1_200, 0), prototypes=50)


@pytest.mark.parametrize("sentences", [1, 20])
def test_heads_fitted_to_near_copies_are_finite(sentences: int) -> None:
    vectors = near_copies(600, 0, sentences)
    bridge, anchors = HashBridge(48, 48), AnchorHead(48)
    fit_codes(bridge, (vectors, vectors), steps=3)
    fit_anchors(anchors, vectors, vectors)
    fit_anchors(anchors, vectors[:0], vectors[:0])
    assert all(weight.isfinite().all() for head in (bridge, anchors) for weight in head.parameters())


def test_blank_texts_and_what_is_no_text_are_not_fitted_to(saved: Path) -> None:
    for fit in (fit_codes_on, fit_anomaly_on):
        with pytest.raises(SpectraError, match="no texts to fit to"):
            fit(str(saved), iter(["", " ", "\u200b"]), say=print)
        with pytest.raises(UsageError, match=r"texts\[1\] is missing"):
            fit(str(saved), ["a", float("nan")], say=print)  # type: ignore[list-item]


def test_texts_without_clusters_get_the_density_method() -> None:
    generator = torch.Generator().manual_seed(0)
    loose = torch.nn.functional.normalize(torch.randn(2_000, 48, generator=generator) + 0.5, dim=-1)
    fit = fit_anomaly(loose)
    assert (fit.head.method, fit.prototypes) == ("density", 800), "a prototype for two texts of those fitted on"
    assert fit_anomaly(loose, prototypes=50).prototypes == 50
    assert fit.false_alarms == pytest.approx(0.05, abs=0.05)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    sp.warm_start(bert_folder(tmp_path)).save_pretrained(str(tmp_path / "saved"))
    return tmp_path / "saved"


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    lines = [f"{a} {b} {c}" for a in WORDS for b in WORDS[6:] for c in WORDS[4:9]]
    (tmp_path / "texts.txt").write_text("\n".join(lines[:1_200]), encoding="utf-8")
    return tmp_path / "texts.txt"


def test_both_fits_from_the_command_line(saved: Path, texts: Path, tmp_path: Path) -> None:
    before = sp.load(saved).encode(["open a file"])
    run = CliRunner().invoke(app, ["codes", "fit", str(saved), "--corpus", str(texts), "--json"])
    assert run.exit_code == 0, run.output
    facts = json.loads(run.stdout)
    assert facts["after"]["64"]["symmetric"] >= facts["before"]["64"]["symmetric"]
    out = tmp_path / "guarded"
    run = CliRunner().invoke(app, ["anomaly", "fit", str(saved), "--texts", str(texts), "-o", str(out)])
    assert run.exit_code == 0 and "false alarms" in run.stdout, run.output
    model = sp.load(out)
    assert model.spectra.config.codes_fitted and np.array_equal(model.encode(["open a file"]), before)
    found = model.encode(["open a file", "a"], outputs=["anomaly", "anomaly_p", "is_ood", "fast"])
    assert found["anomaly_p"].dtype == np.float32 and found["is_ood"].dtype == bool
    assert ((found["anomaly_p"] > 0) & (found["anomaly_p"] <= 1)).all()
    assert not list(out.rglob("*.bin")) and not list(out.rglob("*.pkl"))


def test_codes_are_fitted_to_queries_and_measured_on_held_out_ones(saved: Path, tmp_path: Path) -> None:
    texts = [f"{a} {b} {c}" for a in WORDS for b in WORDS[6:] for c in WORDS[4:9]][:900]
    queries = [f"{a} {b}" for a in WORDS for b in WORDS if a != b][:200]
    facts = fit_codes_on(str(saved), texts, queries, output=tmp_path / "coded", say=lambda _: None)
    assert facts["queries"] == 50 and facts["texts"] == 900
    model = sp.load(tmp_path / "coded")
    asked = model.encode_query(queries[:3], outputs=["fast_logits", "fast"])
    assert np.array_equal(np.packbits(asked["fast_logits"] > 0, axis=1), asked["fast"])


def test_excerpts_are_shorter_than_their_text_and_come_from_it() -> None:
    long = " ".join(f"word{i}" for i in range(40))
    found = excerpts([long, "too short", " ".join("abcdefghijklm")], random.Random(0))
    assert len(found) == 2 and found[0] in long and 6 <= len(found[0].split()) <= 20
    assert len(found[1].split()) == 6


def test_a_checkpoint_is_not_written_into(tmp_path: Path, texts: Path) -> None:
    with pytest.raises(UsageError, match="--output"):
        fit_codes_on(str(bert_folder(tmp_path)), ["a"], say=print)


def test_a_run_folder_gets_a_hint_at_its_model(tmp_path: Path) -> None:
    (tmp_path / "first" / "model").mkdir(parents=True)
    (tmp_path / "first" / "model" / "config.json").touch()
    with pytest.raises(SpectraError, match=r"first is not a model folder, but contains one\. Name .*first/model"):
        fit_codes_on(str(tmp_path / "first"), ["a"], say=print)
