"""A process that has imported everything, and forks a `spectra` command on request.

A fresh interpreter spends seconds of CPU on imports before a command begins; a fork begins at once. Everything else is
as in a process of the user's: arguments, working directory, environment, streams, signals, and the way the interpreter
ends. Tests of the start-up itself need a real process.

The server reads one JSON object per line from standard input and answers each with one line:

| request | answer |
|---|---|
| `run`: arguments, `cwd`, `env`, `output`, `code`, `folder`, `kill_at` | `pid` |
| `wait`: a pid, `seconds` | `status` (null if the command still runs), `events` |

The command writes to OUTPUT.out and OUTPUT.err. An event is the opening, renaming or deletion of something in `folder`;
the process kills itself at event number `kill_at`.
"""

from __future__ import annotations

import atexit
import faulthandler
import gc
import importlib
import itertools
import json
import os
import pkgutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from multiprocessing import Value
from pathlib import Path
from typing import Any, NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 300.0  # seconds after which a command prints where it hangs, and fails
EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir"}


class Command:
    """A running command. `pid` is its process, which takes signals.

    Args:
        server: the server that forked it.
        pid: its process.
        words: its arguments.
        output: the path of its output files, without the suffix.
    """

    def __init__(self, server: ForkServer, pid: int, words: tuple[str, ...], output: Path) -> None:
        self.server, self.pid, self.words, self.output = server, pid, words, output
        self.events = 0
        self.returncode: int | None = None

    def poll(self, seconds: float = 0.0) -> int | None:
        """Returns the exit status (negative for a signal), or None if it still runs after `seconds`."""
        if self.returncode is None:
            answer = self.server.ask({"wait": self.pid, "seconds": seconds})
            self.returncode, self.events = answer["status"], answer["events"]
        return self.returncode

    def wait(self, seconds: float = TIMEOUT) -> subprocess.CompletedProcess[str]:
        """Waits for the end.

        Raises:
            TimeoutError: it still runs after `seconds`.
        """
        status = self.poll(seconds)
        if status is None:
            raise TimeoutError(f"spectra {' '.join(self.words)} still runs after {seconds:g} s")
        streams = (self.output.with_suffix(suffix).read_text(encoding="utf-8") for suffix in (".out", ".err"))
        return subprocess.CompletedProcess(self.words, status, *streams)

    def send_signal(self, number: int) -> None:
        """Sends a signal to the process, unless its end is known."""
        if self.returncode is None:
            os.kill(self.pid, number)


class ForkServer:
    """The client's side of the server, which starts with the first command.

    Args:
        folder: where commands write their output.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.numbers = itertools.count(1)
        self.process: subprocess.Popen[str] | None = None

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Sends a request and returns the answer."""
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.tools.fork_server"],
                cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline())
        except BaseException:  # the answer would be taken for that of the next request
            self.process.kill()
            raise

    def start(
        self,
        *words: str,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        code: str | None = None,
        folder: Path | None = None,
        kill_at: int | None = None,
    ) -> Command:
        """Starts ``spectra WORDS``, or ``python -c CODE WORDS``.

        Args:
            words: the arguments.
            cwd: the working directory; None for this process's.
            env: variables to add to this process's environment.
            code: Python to run instead of the command line.
            folder: where to count events; None counts none.
            kill_at: the number of the event that kills the process; None for no event.
        """
        output = self.folder / str(next(self.numbers))
        request = {
            "run": words, "cwd": str(cwd or Path.cwd()), "env": os.environ | dict(env or {}), "output": str(output),
            "code": code, "folder": folder and str(folder), "kill_at": kill_at,
        }  # fmt: skip
        for suffix in (".out", ".err"):  # there to read even if a signal comes before the command opens them
            output.with_suffix(suffix).touch()
        return Command(self, self.ask(request)["pid"], words, output)

    def run(
        self, *words: str, cwd: Path | None = None, env: Mapping[str, str] | None = None, code: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs ``spectra WORDS``, or Python code, to its end; see `start`."""
        return self.start(*words, cwd=cwd, env=env, code=code).wait()

    def close(self) -> None:
        """Ends the server."""
        if self.process is not None:
            self.process.communicate(timeout=60)


def _serve() -> dict[str, Any] | None:
    """Answers requests. Returns None in the server, at the end of its input, and the request in each forked child."""
    counts: dict[int, Any] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "run" in request:
            events = Value("l", 0)
            pid = os.fork()
            if pid == 0:
                return request | {"events": events}
            counts[pid], answer = events, {"pid": pid}
        else:
            pid, end = request["wait"], time.monotonic() + request["seconds"]
            ended, status = os.waitpid(pid, os.WNOHANG)
            while not ended and time.monotonic() < end:
                time.sleep(0.005)
                ended, status = os.waitpid(pid, os.WNOHANG)
            answer = {
                "status": os.waitstatus_to_exitcode(status) if ended else None,
                "events": counts[pid].value,
            }
        print(json.dumps(answer), flush=True)
    return None


def _become(request: dict[str, Any]) -> None:
    """Makes this process the one that was asked for."""
    streams = [os.devnull, f"{request['output']}.out", f"{request['output']}.err"]
    for number, path in enumerate(streams):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = ["spectra" if request["code"] is None else "-c", *request["run"]]
    faulthandler.dump_traceback_later(TIMEOUT, exit=True)
    events = request["events"]

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        if event in EVENTS and str(arguments[0]).startswith(request["folder"]):
            events.value += 1
            if events.value == request["kill_at"]:
                os.kill(os.getpid(), signal.SIGKILL)

    if request["folder"]:
        sys.addaudithook(count)


def _run(request: dict[str, Any]) -> NoReturn:
    """Runs the command and ends the process as the interpreter does, without taking a hundred modules down."""
    from spectra_nsa.cli.main import main

    _become(request)
    status = 0
    try:
        if request["code"] is None:
            main()
        else:
            exec(request["code"], {"__name__": "__main__"})
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        status = 1
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _import_everything() -> None:
    import spectra_nsa
    from spectra_nsa.cli import main

    os.environ.update(main._QUIET)  # the libraries read these when they are imported, here as in every command
    for module in pkgutil.walk_packages(spectra_nsa.__path__, "spectra_nsa."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in ("bm25s", "datasets", "faiss", "ir_measures", "sklearn", "scipy.stats"):
        importlib.import_module(name)


if __name__ == "__main__":
    from tests.tools.shortcuts import take_shortcuts

    _import_everything()
    take_shortcuts(pytest.MonkeyPatch())
    gc.freeze()  # a collection in a child would copy every page
    if request := _serve():
        _run(request)
