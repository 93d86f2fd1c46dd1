"""The command as users see it: its verbs and flags, what --help shows, and the exit status of a mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from spectra_nsa.cli.main import app, main
from tests.tools.fork_server import ForkServer

Spectra = Callable[..., subprocess.CompletedProcess[str]]

# A name that leaves this table breaks somebody's script; a new one is added here on purpose.
# Arguments stand first, by name; then the options.
FLAGS = {
    "quickstart": "--dir --minutes --from-scratch --sparse --json",
    "train": (
        "words --size --model -m --data -d --columns --epochs --max-steps --batch --max-length --name --seed "
        "--resume --gradient-checkpointing --no-matryoshka --no-spectral --no-depth-mix --no-entity --no-anchor "
        "--no-bridge --no-ranking --no-anomaly --dry-run --json"
    ),
    "pretrain": (
        "words --size --model -m --data -d --columns --epochs --max-steps --batch --max-length --name --seed "
        "--resume --gradient-checkpointing --dry-run --json"
    ),
    "distill": (
        "teacher source words --columns --layers --static --dim --epochs --max-steps --output -o --resume --dry-run "
        "--json"
    ),
    "monitor": "run --once --every --all --json",
    "compare": "first second --html --all --json",
    "eval": (
        "model --task -t --baseline -b --json --markdown --html --dim --query-active --document-active --limit "
        "--fusion-dev --all --columns --precision"
    ),
    "ablate": (
        "words --parts --part --task -t --seeds --model -m --data -d --columns --output -o --markdown --dim --limit "
        "--keep-models --list-parts --dry-run --json"
    ),
    "encode": (
        "model more --texts -t --input -i --columns --output -o --outputs --dim --batch --precision --dtype --role "
        "--active --format --shard-rows --keep-text --workers --devices --engine --part --overwrite --dry-run --json"
    ),
    "similarity": "model first second --dim --json",
    "search": "words --corpus -c --columns -k --bits --candidates --symmetric --lines --model -m --json",
    "index build": "corpus --model -m --output -o --kind --columns --impacts --prune --dev --json",
    "index add": "folder source --columns --replace --model -m --json",
    "index delete": "folder ids --json",
    "index info": "folder --json",
    "index verify": "folder --json",
    "index compact": "folder --json",
    "index fit": "folder queries --columns --model -m --json",
    "index export": "folder --output -o --json",
    "index import": "source --output -o --model -m --impacts --prune --json",
    "mine": (
        "source --model -m --output -o --corpus -c --negatives --range-min --range-max --margin --relative-margin "
        "--percentage-to-positive --max-score --min-score --sampling --seed --judge --judge-ratio --incomplete "
        "--scores --keep --columns --split --limit --dry-run --json"
    ),
    "inspect": "model --gpu --rows --epochs --batch --texts --gradient-checkpointing --json",
    "push": "folder repo --public --results --license --data-license --language --message --dry-run --json",
    "export": "model --to --output -o --outputs --dim --top-k --seq-len --fast --texts --least-cosine --report --json",
    "codes fit": "model --corpus -c --queries -q --columns --output -o --seed --json",
    "anomaly fit": "model --texts -t --columns --output -o --prototypes --level --seed --json",
    "moe dense": "model --output -o --expert --json",
    "moe analyze": "model --texts -t --html --limit --pairs --permutations --columns --seed --json",
    "moe mix": "models --output -o --texts -t --router --every --first --limit --ridge --json",
    "tokenizer train": (
        "sources --output -o --out-prefix --kind --vocab-size --lowercase --min-frequency --max-length --limit "
        "--columns --held-out --json"
    ),
    "tokenizer report": "tokenizers --texts -t --columns --json",
    "recipe list": "--json",
    "recipe show": "name --json",
    "recipe copy": "name file --json",
    "backup list": "url --json",
    "backup restore": "url --to --json",
    "data preview": "source --columns --split --limit --rows --against --quarantine --json",
    "data nli": "source --output -o --columns --entailment --contradiction --split --limit --json",
}

HEAVY = ("torch", "transformers", "sentence_transformers", "datasets", "pandas", "scipy", "sklearn", "pyarrow")


def verbs(command: Any = None, name: str = "") -> Iterator[tuple[str, Any]]:
    command = command or typer.main.get_command(app)
    if not hasattr(command, "commands"):
        yield name, command
        return
    for below, child in command.commands.items():
        yield from verbs(child, f"{name} {below}".strip())


@pytest.fixture
def spectra(fork_server: ForkServer, tmp_path: Path) -> Spectra:
    """Runs a command at home in the test's folder."""
    return lambda *words: fork_server.run(*words, cwd=tmp_path, env={"HOME": str(tmp_path), "COLUMNS": "200"})


def test_the_verbs_and_their_flags() -> None:
    found = {}
    for name, command in verbs():
        arguments = [one.name for one in command.params if one.param_type_name == "argument"]
        options = [opt for one in command.params for opt in one.opts if opt.startswith("-")]
        found[name] = sorted([*arguments, *options])
    assert found == {name: sorted(flags.split()) for name, flags in FLAGS.items()}


@pytest.mark.parametrize("name", FLAGS)
def test_help_explains_every_option_and_shows_an_example(name: str) -> None:
    run = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "200"})
    assert run.exit_code == 0
    assert f"Example: spectra {name} " in " ".join(run.stdout.split()) + " "
    narrow = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
    assert all(flag in narrow.stdout for flag in FLAGS[name].split() if flag.startswith("-")), "an option is cut"
    command = dict(verbs())[name]
    assert all(one.help for one in command.params if one.name != "help"), "an option without a help text"
    assert any("--json" in one.opts for one in command.params)


def test_help_of_the_command_names_every_verb() -> None:
    run = CliRunner().invoke(app, ["-h"], env={"COLUMNS": "200"})
    assert run.exit_code == 0
    for name in FLAGS:
        assert f" {name.split()[0]} " in run.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--help"], 0, "Train, measure"),
        (["train", "--size", "M465", "--dry-run"], 2, "Did you mean 'M456'"),
        (["inspect", "M465"], 2, "Did you mean 'M456'"),
        (["inspect", "mini", "--gpu", "A1000"], 2, "Did you mean 'A100'"),
        (["train", "--bogus"], 2, "--bogus"),
        (["bogus"], 2, "bogus"),
        (["train", "gone.yaml"], 2, "there is no recipe gone.yaml"),
        (["recipe", "show", "m465"], 2, "Did you mean 'm456'"),
        (["recipe", "copy", "m456", "mine"], 2, "must end in .yaml"),
        (["train", "one.yaml", "two.yaml"], 2, "one recipe at a time"),
        (["train", "train.bacth=4"], 2, "Did you mean 'train.batch'"),
        (["train", "--lr", "1e-4"], 2, "Recipe keys are given without dashes: train.lr=1e-4"),
        (["pretrain", "--learning-rate=1e-4"], 2, "Recipe keys are given without dashes: train.lr=1e-4"),
        (["distill", "a", "b", "--batch", "32"], 2, "Recipe keys are given without dashes: train.batch=32"),
        (["ablate", "--accumulation"], 2, "Recipe keys are given without dashes: train.accumulation=VALUE"),
        (["train", "--columns", "anchor=a", "data.columns={}"], 2, "give only one of them"),
        (["train", "--columns", "anchro=a"], 2, "Did you mean 'anchor'"),
        (["distill", "--resume", "gone", "--output", "there"], 2, "takes no other option"),
        (["train", "--size", "mini", "--dry-run"], 2, "--data SOURCE"),
        (["train", "--resume", "gone"], 1, "neither a run"),
        (["pretrain", "--resume", "gone"], 1, "neither a run"),
        (["pretrain", "--size", "small"], 2, "--data SOURCE"),
        (["pretrain", "--size", "small", "loss.temperature=0.1"], 2, "loss means nothing in pretraining"),
        (["pretrain", "pretrain.mask_rat=0.3"], 2, "Did you mean 'pretrain.mask_rate'"),
        (["train", "--size", "small", "pretrain.mask_rate=0.3"], 2, "is for spectra pretrain"),
        (["data", "preview", "gone.jsonl"], 1, "gone.jsonl does not exist"),
        (["similarity", "model", "a", "\u200b"], 2, "text 2 is empty"),
        (["encode", "model", "--texts", " ", "a"], 2, "text 1 is empty"),
        (["search", "model", "\ufeff", "--corpus", "a.txt"], 2, "the query is empty"),
        (["backup", "list", "gone"], 1, "holds no backups"),
        (["backup", "restore", "gone"], 1, "holds no backups"),
        (["backup", "list", "ftq://gone"], 2, "neither a folder nor an address"),
        (["data", "preview", "a.jsonl", "--columns", "title"], 2, "anchor=title,positive=body"),
        (["tokenizer", "train", "gone.txt", "--output", "t"], 1, "gone.txt does not exist"),
        (["tokenizer", "train", "gone.txt", "--output", "t", "--kind", "unigramm"], 2, "Did you mean 'unigram'"),
        (["tokenizer", "train", "x", "--output", "t", "--min-frequency", "3"], 2, "has no least frequency"),
        (["tokenizer", "report", "./gone", "--texts", "x"], 1, "tokenizer: ./gone does not exist. Train one"),
        (["inspect", "./gone"], 1, "not a model folder"),
        (["encode", "./gone"], 2, "give texts"),
        (["similarity", "./gone", "a", "b"], 1, "not a model folder"),
        (["search", "a", "b", "c", "--corpus", "x"], 2, "put the query in quotes"),
        (["search", "query", "--corpus", "x"], 1, "name a model"),
        (["eval", "bm25"], 2, "--task"),
        (["ablate", "--parts", "anchor", "--data", "gone.jsonl"], 2, "--task"),
        (["ablate", "--parts", "anchor", "--task", "sts=gone.jsonl", "--data", "gone.jsonl"], 1, "gone.jsonl"),
        (["distill", "./gone", "pairs.jsonl"], 1, "not a model folder"),
        (
            ["distill", "./gone", "pairs.jsonl", "--static", "--layers", "3"],
            2,
            "--static makes a student without layers",
        ),
        (["distill", "./gone", "pairs.jsonl", "--dim", "64"], 2, "--static student"),
        (["monitor", "gone", "--once"], 1, "is not a run"),
        (["compare", "M456", "M465"], 2, "Did you mean 'M456'"),
        (["train", "train.report_to=[tensorbored]"], 2, "train.report_to"),
        (["mine", "gone.jsonl", "--model", "bm25", "--output", "mined.jsonl"], 1, "gone.jsonl does not exist"),
        (["mine", "gone.jsonl", "--model", "bm25", "--output", "mined.csv"], 2, ".parquet"),
        (["mine", "gone.jsonl", "--model", "bm25"], 2, "--output"),
        (["eval", "bm25", "--task", "sts=gone.jsonl"], 1, "gone.jsonl"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else None,
)
def test_exit_status_and_message(spectra: Spectra, arguments: list[str], code: int, message: str) -> None:
    run = spectra(*arguments)
    assert run.returncode == code, run.stderr
    assert message in (run.stderr if code else run.stdout)
    assert "Traceback" not in run.stderr
    if code:
        assert run.stdout == "", "a failure leaves standard output to nobody"


def test_a_failed_command_leaves_nothing(spectra: Spectra, tmp_path: Path) -> None:
    assert spectra("train", "--data", "gone.jsonl", "--size", "small").returncode == 1
    assert not list(tmp_path.rglob("runs/*/*")) and not (tmp_path / "last.json").exists()


def modules_after(code: str, folder: Path) -> set[str]:
    script = f"import sys\n{code}\nprint(*sys.modules, file=sys.stderr)"
    run = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return set(run.stderr.split())


def test_importing_the_package_is_light(tmp_path: Path) -> None:
    loaded = modules_after("import spectra_nsa\ndir(spectra_nsa)\nspectra_nsa.SpectraError", tmp_path)
    assert "spectra_nsa" in loaded
    assert not loaded & {*HEAVY, "typer", "numpy", "pydantic", "yaml", "rich"}


def test_help_is_light(tmp_path: Path) -> None:
    code = (
        "from typer.testing import CliRunner\nfrom spectra_nsa.cli.main import app\n"
        f"for name in {['', *FLAGS]!r}:\n"
        "    assert CliRunner().invoke(app, [*name.split(), '--help']).exit_code == 0, name"
    )
    assert not modules_after(code, tmp_path) & {*HEAVY, "numpy"}


def test_version_names_the_libraries_and_imports_none(spectra: Spectra, tmp_path: Path) -> None:
    import spectra_nsa

    run = spectra("--version")
    assert run.returncode == 0 and run.stdout.startswith(f"spectra-nsa {spectra_nsa.__version__}\n")
    assert {line.split()[0] for line in run.stdout.splitlines()} >= {"torch", "transformers", "sentence-transformers"}
    code = (
        "from typer.testing import CliRunner\nfrom spectra_nsa.cli.main import app\n"
        "assert CliRunner().invoke(app, ['--version']).exit_code == 0"
    )
    assert not modules_after(code, tmp_path) & {*HEAVY, "numpy"}


def test_public_names_load_and_others_fail() -> None:
    import spectra_nsa

    assert spectra_nsa.__version__
    for name in spectra_nsa.__all__:
        assert getattr(spectra_nsa, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        spectra_nsa.nothing  # noqa: B018


def test_a_reader_that_leaves_early_sees_no_traceback(tmp_path: Path) -> None:
    command = f"{sys.executable} -m spectra_nsa --help | head -n 1"
    run = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0 and run.stderr == ""


def test_installed_under_its_name() -> None:
    from importlib.metadata import entry_points

    (found,) = [one for one in entry_points(group="console_scripts") if one.name == "spectra"]
    assert found.value == "spectra_nsa.cli.main:main"


def test_inspect_json() -> None:
    run = CliRunner().invoke(app, ["inspect", "M456", "--gpu", "H100", "--json"], catch_exceptions=False)
    facts = json.loads(run.stdout)
    assert {"parameters", "parts", "flops_per_token", "memory_gb", "hours_estimate"} <= set(facts)
    assert set(facts["memory_gb"]) == {"inference", "training"}
    assert facts["parameters"] == sum(facts["parts"].values())
    assert facts["gpu"] == "H100"
    readable = CliRunner().invoke(app, ["inspect", "M456"], env={"COLUMNS": "200"}, catch_exceptions=False)
    assert "458.1 M parameters" in readable.stdout and "hidden size" in readable.stdout
    assert (
        "warm-started" not in readable.stdout
        and " h on one" not in readable.stdout
        and "anomaly head" in facts["parts"]
    )
    hours = CliRunner().invoke(app, ["inspect", "M456", "--rows", "98000"], catch_exceptions=False)
    assert " h on one A100" in hours.stdout


@pytest.mark.parametrize(
    ("verb", "work", "message"),
    [
        (
            ["mine", "p.jsonl", "-m", "bm25", "-o", "m.jsonl"],
            "mine.run.mine",
            "stopped; run the same command again to resume",
        ),
        (["tokenizer", "train", "p.jsonl", "-o", "words"], "tokenizer.train_tokenizer_on", "spectra: interrupted"),
    ],
)
def test_a_command_that_is_interrupted_says_so_once(
    verb: list[str], work: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"spectra_nsa.workflows.{work}", interrupted)
    monkeypatch.setattr("sys.argv", ["spectra", *verb])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 130 and capsys.readouterr().err.strip() == message
