"""Every command and the Python example of README.md run, on small stand-ins for what they name."""

from __future__ import annotations

import csv
import json
import re
import shlex
from pathlib import Path

import pytest

import spectra_nsa as sp
from tests.builders import WORDS, bert_folder
from tests.tools.fork_server import ForkServer

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
HUB = "sentence-transformers/all-MiniLM-L6-v2"


def commands() -> list[str]:
    """Returns the `spectra` lines of the bash blocks, with continued lines joined."""
    blocks = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("spectra ")]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small stand-in for everything that the README names."""
    home = tmp_path_factory.mktemp("reader")
    checkpoint = bert_folder(home / "bert", hidden_size=144, num_attention_heads=4)
    sp.warm_start(checkpoint).save_pretrained(str(home / "runs" / "quickstart" / "model"))
    for name, first in (("pairs", WORDS[::2]), ("held-out", WORDS[1::2])):
        with (home / f"{name}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["title", "body"])
            table.writerows([f"{word} {other}", f"def {other}(): {word}"] for word in first for other in WORDS)
    (home / "hub").symlink_to(checkpoint)
    (home / ".cache" / "spectra-nsa").mkdir(parents=True)
    last = {"model": str(home / "runs" / "quickstart" / "model")}
    (home / ".cache" / "spectra-nsa" / "last.json").write_text(json.dumps(last))
    return home


def test_the_readme_has_commands() -> None:
    verbs = {shlex.split(line)[1] for line in commands()}
    assert {"search", "similarity", "encode", "eval", "train", "data"} <= verbs


@pytest.mark.parametrize("line", commands())
def test_a_command_of_the_readme_runs(line: str, home: Path, fork_server: ForkServer) -> None:
    words = shlex.split(line.replace(HUB, "./hub"))[1:]
    done = fork_server.run(*words, cwd=home, env={"HOME": str(home)})
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_python_example_runs(home: Path, fork_server: ForkServer) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    done = fork_server.run(code=code, cwd=home)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(2, 128) def ")
