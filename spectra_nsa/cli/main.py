"""The `spectra` command: its commands, exit status and error messages."""

from __future__ import annotations

import os
import platform
import sys
from typing import Annotated

import typer

from spectra_nsa.cli import backup, data, index, moe, recipe, tokenizer
from spectra_nsa.cli.ablate import ablate_command
from spectra_nsa.cli.compare import compare_command
from spectra_nsa.cli.distill import distill_command
from spectra_nsa.cli.encode import encode_command
from spectra_nsa.cli.eval import evaluate_command
from spectra_nsa.cli.export import export_command
from spectra_nsa.cli.fit import anomaly_app, codes_app
from spectra_nsa.cli.inspect import inspect_command
from spectra_nsa.cli.mine import mine_command
from spectra_nsa.cli.monitor import monitor_command
from spectra_nsa.cli.options import CommandList, RecipeCommand
from spectra_nsa.cli.pretrain import pretrain_command
from spectra_nsa.cli.push import push_command
from spectra_nsa.cli.quickstart import quickstart_command
from spectra_nsa.cli.search import search_command
from spectra_nsa.cli.similarity import similarity_command
from spectra_nsa.cli.train import train_command
from spectra_nsa.core import processes
from spectra_nsa.core.console import prepare_streams
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.core.strings import is_utf8

app = typer.Typer(
    name="spectra",
    cls=CommandList,
    help="Train, measure, compress, ship and search text-embedding models.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # its tables cut option names at 80 columns
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_versions(requested: bool) -> None:
    if not requested:
        return
    from spectra_nsa import __version__
    from spectra_nsa.core.results import versions

    for name, version in (versions() | {"spectra-nsa": __version__, "python": platform.python_version()}).items():
        print(name, version)
    raise typer.Exit


@app.callback()
def _spectra(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_versions, is_eager=True, help="Show the versions in use and exit."),
    ] = False,
) -> None:
    """Reads the options that precede the command."""


app.command("quickstart")(quickstart_command)
app.command("train", cls=RecipeCommand)(train_command)
app.command("pretrain", cls=RecipeCommand)(pretrain_command)
app.command("distill", cls=RecipeCommand)(distill_command)
app.command("monitor")(monitor_command)
app.command("compare")(compare_command)
app.command("eval")(evaluate_command)
app.command("ablate", cls=RecipeCommand)(ablate_command)
app.command("encode")(encode_command)
app.command("similarity")(similarity_command)
app.command("search")(search_command)
app.command("mine")(mine_command)
app.command("inspect")(inspect_command)
app.command("export")(export_command)
app.command("push")(push_command)
_GROUPS = {
    "index": index.app,
    "data": data.app,
    "tokenizer": tokenizer.app,
    "recipe": recipe.app,
    "backup": backup.app,
    "codes": codes_app,
    "anomaly": anomaly_app,
    "moe": moe.app,
}
for _name, _group in _GROUPS.items():
    app.add_typer(_group, name=_name, cls=CommandList)


# Silences the logs and progress bars of the libraries.
_QUIET = {
    "TOKENIZERS_PARALLELISM": "true",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "DATASETS_VERBOSITY": "error",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}


def main() -> None:
    """Runs the command line. Exit status: 0 done, 1 failed, 2 bad usage, 130 interrupted."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    prepare_streams()
    try:
        status = _run()
        if not status:
            processes.exit_now()
        sys.stdout.flush()
    except SpectraError as error:
        status = _failed(str(error), 2 if isinstance(error, UsageError) else 1)
    except KeyboardInterrupt:
        if os.environ.get("RANK", "0") == "0":
            print("spectra: interrupted", file=sys.stderr)
        status = 130
    except BrokenPipeError:  # the reader (head, less) has seen enough
        status = _drop_stdout(1)
    except OSError as error:
        status = _failed(_system_error(error), 1)
    except MemoryError:
        status = _failed("there is not enough memory.", 1)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("", "spectra_nsa"):
            raise
        status = _failed(_missing(error.name or ""), 1)
    sys.exit(_flushed(status))


def _missing(module: str) -> str:
    """Returns what to do about a library that a small installation leaves out."""
    return (
        f"{module.partition('.')[0]} is not installed, and this command needs it. A small installation, such as "
        "spectra-nsa[runtime], encodes texts with an exported graph (spectra_nsa.runtime.Runtime; spectra encode "
        "--texts and similarity); for all commands: pip install spectra-nsa"
    )


def _run() -> int:
    """Runs the command and returns its exit status, without the exits that typer makes of Ctrl-C and closed pipes."""
    unreadable = next((word for word in sys.argv[1:] if not is_utf8(word)), None)
    if unreadable is not None:
        raise UsageError(f"the argument {unreadable!a} is not UTF-8. Write it in UTF-8, or rename the file.")
    try:
        app()
    except SystemExit as end:
        for cause in (end.__context__, getattr(end.__context__, "__cause__", None)):
            if isinstance(cause, KeyboardInterrupt | BrokenPipeError):
                raise cause from None
        return end.code if isinstance(end.code, int) else 0
    return 0


def _failed(problem: str, status: int) -> int:
    """Prints one line for a problem, without control characters of a file that it quotes, and returns the status."""
    processes.wait_to_report()
    line = "".join(character if character.isprintable() else " " for character in problem)
    print(f"spectra: {line}", file=sys.stderr)
    return status


def _system_error(error: OSError) -> str:
    """Returns what the system reports: the file if it is known, and the problem."""
    reason = error.strerror or str(error) or type(error).__name__
    return f"{reason}." if error.filename is None else f"{error.filename}: {reason}."


def _flushed(status: int) -> int:
    """Returns the status after sending what is still buffered after an error."""
    try:
        sys.stdout.flush()
    except OSError:
        return _drop_stdout(status)
    return status


def _drop_stdout(status: int) -> int:
    """Returns the status; what is still buffered goes nowhere, so that the interpreter does not fail at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status
