"""A model opened without transformers returns bit for bit what sentence-transformers returns for the same folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import spectra_nsa as sp
from spectra_nsa.core.errors import UsageError
from spectra_nsa.core.seeds import set_seed
from spectra_nsa.heads.kinds import OUTPUTS
from spectra_nsa.models.fresh import fresh_model
from spectra_nsa.models.open import open_encoder
from spectra_nsa.models.saved import SavedModel, open_saved
from spectra_nsa.tokens.train import TokenizerSpec, train_tokenizer
from spectra_nsa.workflows.fit import fit_anomaly_on
from tests.builders import WORDS, bert_folder

PROMPTS = {"query": "query: the ", "document": "text ", "other": "a token "}
NUMBERS = np.random.default_rng(0)
TEXTS = [" ".join(NUMBERS.choice(WORDS, size)) for size in NUMBERS.integers(1, 60, 70)]
TEXTS += [f"open {letter}" for letter in "abcdefghijklmnopqrstuvwxyz" * 3]  # of one length, in several batches
TEXTS += ["", " ", "  Open\tTHE\nfile ", "Ünïcode ﬁle 文件 🙂 \u200b\x00", "[MASK] [SEP] the [PAD]", "x" * 300]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every optional part, prompts, and pooling that leaves the prompt out."""
    path = tmp_path_factory.mktemp("saved")
    start = bert_folder(path / "bert", prompts=PROMPTS, include_prompt=False)
    set_seed(1)
    model = sp.warm_start(start, spectral=True, depth_mix=True, entity=True, max_seq_length=24)
    for weight in model.spectra.gates():
        weight.data.fill_(0.3)
    model.save_pretrained(str(path / "model"))
    fit_anomaly_on(str(path / "model"), TEXTS, level=0.2, say=lambda line: None)
    return path / "model"


def both(folder: Path) -> tuple[SavedModel, sp.SpectraSentenceTransformer]:
    saved = open_saved(folder)
    assert saved is not None
    return saved, sp.load(folder, device=saved.device.type)


def assert_equal(found: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert_equal(found[name], value)
    else:
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("method", ["encode", "encode_query", "encode_document"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"normalize_embeddings": True},
        {"truncate_dim": 16},
        {"batch_size": 7, "truncate_dim": 8, "normalize_embeddings": True},
        {"outputs": list(OUTPUTS)},
        {"outputs": ["semantic", "embedding"], "truncate_dim": 16, "batch_size": 5},
    ],
    ids=str,
)
def test_vectors_are_the_same_to_the_last_bit(folder: Path, method: str, options: dict[str, Any]) -> None:
    saved, loaded = both(folder)
    for texts in (TEXTS, TEXTS[:2], TEXTS[5]):
        assert_equal(getattr(saved, method)(texts, **options), getattr(loaded, method)(texts, **options))


@pytest.mark.parametrize("size", [-1, 0, 500])
def test_a_size_that_the_vectors_lack_is_refused(folder: Path, size: int) -> None:
    for model in both(folder):
        for outputs in (None, ["semantic"]):
            with pytest.raises(UsageError, match=f"from 1 to the model's 32 dimensions, not {size}"):
                model.encode(TEXTS[:2], outputs=outputs, truncate_dim=size)


def test_prompts_and_lengths_are_the_same(folder: Path) -> None:
    saved, loaded = both(folder)
    assert (saved.prompts, saved.default_prompt_name) == (loaded.prompts, loaded.default_prompt_name)
    assert saved.max_seq_length == loaded.max_seq_length == 24
    assert saved.spec.semantic_dims == loaded.spec.semantic_dims
    assert_equal(saved.encode(TEXTS[:9], prompt_name="other"), loaded.encode(TEXTS[:9], prompt_name="other"))


def test_a_default_prompt_is_used(folder: Path, tmp_path: Path) -> None:
    loaded = sp.load(folder)
    loaded.default_prompt_name = "other"
    loaded.save_pretrained(str(tmp_path / "m"))
    saved, again = both(tmp_path / "m")
    assert_equal(saved.encode(TEXTS[:9]), again.encode(TEXTS[:9]))
    assert not np.array_equal(saved.encode(TEXTS[:9]), sp.load(folder).encode(TEXTS[:9]))


def test_vectors_that_are_not_normalized_stay_so(tmp_path: Path) -> None:
    start = bert_folder(tmp_path / "bert", normalize=False)
    sp.warm_start(start).save_pretrained(str(tmp_path / "m"))
    saved, loaded = both(tmp_path / "m")
    for options in ({}, {"truncate_dim": 16}, {"outputs": ["embedding"], "truncate_dim": 16}):
        assert_equal(saved.encode(TEXTS[:40], **options), loaded.encode(TEXTS[:40], **options))


@pytest.mark.parametrize("kind", ["unigram", "wordpiece", "bpe", "word"])
def test_tokenizers_of_our_own_are_the_same(tmp_path: Path, kind: str) -> None:
    words = train_tokenizer(TEXTS * 3, TokenizerSpec(kind=kind, vocab_size=400, max_length=24))
    words.save_pretrained(str(tmp_path / "words"))
    set_seed(0)
    model = fresh_model(
        "mini", tokenizer=str(tmp_path / "words"), hidden_size=32, num_attention_heads=4, intermediate_size=64,
        num_hidden_layers=2, semantic_dims=[32, 16],
    )  # fmt: skip
    model.save_pretrained(str(tmp_path / "m"))
    saved, loaded = both(tmp_path / "m")
    assert_equal(saved.encode(TEXTS), loaded.encode(TEXTS))


def changed(name: str, **values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        facts = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(facts | values))

    return change


@pytest.mark.parametrize(
    "change",
    [
        changed("sentence_bert_config.json", do_lower_case=True),
        changed("sentence_bert_config.json", max_seq_length=12),
        changed("tokenizer_config.json", do_lower_case=False),
        changed("tokenizer_config.json", tokenizer_class="RobertaTokenizer"),
        changed("config.json", dtype="bfloat16"),
        lambda folder: (folder / "tokenizer.json").unlink(),
    ],
    ids=["lower-case", "length", "cased", "class", "dtype", "tokenizer"],
)
def test_what_the_libraries_interpret_is_left_to_them(
    folder: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    copy = shutil.copytree(folder, tmp_path / "m")
    change(copy)
    assert open_saved(copy) is None


def test_a_checkpoint_is_opened_by_the_libraries(tmp_path: Path) -> None:
    assert isinstance(open_encoder(bert_folder(tmp_path)), sp.SpectraSentenceTransformer)


def test_an_unknown_output_is_refused(folder: Path) -> None:
    saved, _ = both(folder)
    with pytest.raises(ValueError, match="Did you mean 'semantic'"):
        saved.encode(["a"], outputs=["semantics"])


@pytest.mark.parametrize("verb", ["similarity", "encode", "search"])
def test_verbs_on_a_saved_model_load_no_transformers(folder: Path, tmp_path: Path, verb: str) -> None:
    (tmp_path / "corpus.txt").write_text("\n".join(text for text in TEXTS[:20] if text.strip()))
    words = {
        "similarity": ["open a file", "close the socket"],
        "encode": ["open a file"],
        "search": ["open a file", "--corpus", str(tmp_path / "corpus.txt")],
    }
    code = """
import sys
from spectra_nsa.cli.main import app
app(sys.argv[1:], standalone_mode=False)
heavy = {"transformers", "sentence_transformers", "torch._dynamo", "sympy", "sklearn", "scipy"} & set(sys.modules)
assert not heavy, heavy
"""
    command = [sys.executable, "-c", code, verb, str(folder), *words[verb], "--json"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["model"] == str(folder)
    assert run.stderr.startswith(f"spectra: loading {folder}\n")
