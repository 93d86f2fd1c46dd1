"""The fork server: a command in it behaves like one in a fresh process."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

from tests.tools.fork_server import ForkServer

STATE = "import json, os, sys; print(json.dumps([sys.argv, os.getcwd(), os.environ.get('X'), sys.stdin.read()]))"


def test_status_and_streams_are_those_of_the_command(run_spectra: Callable[..., CompletedProcess[str]]) -> None:
    done = run_spectra("inspect", "mini", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["parameters"] > 1e6 and not done.stderr
    wrong = run_spectra("inspect", "minni")
    assert (wrong.returncode, wrong.stdout) == (2, "") and "Did you mean 'mini'" in wrong.stderr


def test_nothing_is_left_for_the_next_command(fork_server: ForkServer, tmp_path: Path) -> None:
    first = fork_server.run("a", cwd=tmp_path, env={"X": "1"}, code=STATE + "; os.environ['X'] = '2'; os.chdir('/')")
    assert json.loads(first.stdout) == [["-c", "a"], str(tmp_path), "1", ""]
    assert json.loads(fork_server.run(code=STATE).stdout) == [["-c"], str(Path.cwd()), None, ""]


def test_an_error_prints_its_traceback_and_atexit_runs(fork_server: ForkServer) -> None:
    done = fork_server.run(code="import atexit; atexit.register(print, 'end'); raise ValueError('no')")
    assert done.returncode == 1 and done.stdout == "end\n" and done.stderr.endswith("ValueError: no\n")


def test_signals_and_events_end_it(fork_server: ForkServer, tmp_path: Path) -> None:
    sleeping = fork_server.start(code="import time; time.sleep(60)")
    assert sleeping.poll() is None
    sleeping.send_signal(signal.SIGTERM)
    assert sleeping.wait().returncode == -signal.SIGTERM
    code = f"for name in 'abc': open({str(tmp_path)!r} + '/' + name, 'w').close()"
    whole = fork_server.start(code=code, folder=tmp_path)
    assert whole.wait().returncode == 0 and whole.events == 3
    (tmp_path / "c").unlink()
    killed = fork_server.start(code=code, folder=tmp_path, kill_at=3)
    assert killed.wait().returncode == -signal.SIGKILL and not (tmp_path / "c").exists()
