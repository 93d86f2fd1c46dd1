"""`spectra monitor`: watches a run from a second terminal."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectra_nsa.core.console import print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spectra_nsa.report.run_log import MetricsRow


def monitor_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run's folder, such as runs/first.")],
    once: Annotated[bool, typer.Option("--once", help="Print the current state once and exit.")] = False,
    every: Annotated[float, typer.Option(min=0.2, help="Seconds between updates.")] = 2.0,
    show_all: Annotated[bool, typer.Option("--all", help="Show every loss term, rate and health figure too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the current state as JSON and exit.")] = False,
) -> None:
    """Watch a run: dev metric, loss, speed, health, warnings. Exits when the run ends.

    Example: spectra monitor runs/first
    """
    from spectra_nsa.report.run_log import MetricsTail, read_run

    log = read_run(run, empty=not (once or as_json))
    if as_json:
        print_json({"schema": 1, "run": str(run), **_run_state(log.rows)}, indent=2)
        return
    tail = MetricsTail(run / "metrics.jsonl")
    if once:
        from spectra_nsa.core.console import console

        console().print(_panel(run, tail.read(), console().width, show_all))
        return
    with contextlib.suppress(KeyboardInterrupt):  # this ends the command, not the run
        _follow(run, tail, every, show_all)


def _follow(run: Path, tail: Any, every: float, show_all: bool) -> None:
    from rich.live import Live

    from spectra_nsa.core.console import console

    out = console()
    with Live(console=out, auto_refresh=False) as live:
        while True:
            rows = tail.read()
            live.update(_panel(run, rows, out.width, show_all), refresh=True)
            if rows and _run_state(rows)["status"] not in ("running", "starting"):
                return
            time.sleep(every)


def _run_state(rows: Sequence[MetricsRow]) -> dict[str, Any]:
    """Returns the state of a run; one whose process has died without logging its end is `lost`."""
    from spectra_nsa.report.run_status import run_status

    state = run_status(rows, now=time.time())
    if state["status"] == "running" and _is_dead(state["started"]):
        state |= {"status": "lost", "seconds_left": None}
    return state


def _is_dead(started: dict[str, Any]) -> bool:
    """Returns whether the process of a run is known to be dead: it ran on this machine, and no process has its id."""
    import os
    import socket

    if not started.get("pid") or started.get("host") != socket.gethostname():
        return False
    try:
        os.kill(started["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:  # it belongs to another user
        return False
    return False


def _panel(run: Path, rows: Sequence[MetricsRow], width: int, show_all: bool) -> Any:
    from rich.console import Group

    from spectra_nsa.report.run_view import WIDE, run_view

    status = _run_state(rows)["status"] if rows else None
    view = run_view(rows, name=run.name, now=time.time(), status=status, details=show_all, wide=width >= WIDE)
    remedy = f"Its process ended without finishing the run. Resume it: spectra train --resume {run}"
    return Group(view, "", remedy) if status == "lost" else view
