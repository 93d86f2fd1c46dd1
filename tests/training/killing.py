"""A process that has loaded everything, and forks `spectra train` as often as it is asked to.

Each line of standard input is a JSON object: the command's arguments, and how it is to die. `event` kills it, from
within, at the n-th time it opens, renames or deletes something below `folder`; `seconds` from outside. The answer is
a line with the exit status (-9 killed), the number of events and the seconds it took.
"""

from __future__ import annotations

import faulthandler
import json
import math
import os
import signal
import sys
import time
from multiprocessing import Value
from typing import Any

WATCHED = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir"}


def work(order: dict[str, Any], count: Any) -> None:
    """The child: the command as a user runs it."""
    from spectra_nsa.cli.main import main

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in WATCHED or not str(arguments[0]).startswith(order["folder"]):
            return
        count.value += 1
        if count.value == order.get("event"):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    out = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    faulthandler.dump_traceback_later(100, exit=True)  # one that hangs says where, and fails
    sys.argv = ["spectra", *order["arguments"]]
    main()


def serve() -> None:
    import spectra_nsa.training.loop.build
    import spectra_nsa.training.run
    import spectra_nsa.workflows.search  # noqa: F401

    for line in sys.stdin:
        order, count, began = json.loads(line), Value("l", 0), time.monotonic()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                work(order, count)
                status = 0
            except SystemExit as end:
                status = int(end.code or 0)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        ended, status = os.waitpid(child, os.WNOHANG)
        while not ended:
            if time.monotonic() - began > order.get("seconds", math.inf):
                os.kill(child, signal.SIGKILL)
            time.sleep(0.01)
            ended, status = os.waitpid(child, os.WNOHANG)
        answer = {"status": os.waitstatus_to_exitcode(status), "events": count.value}
        print(json.dumps({**answer, "seconds": time.monotonic() - began}), flush=True)


if __name__ == "__main__":
    serve()
