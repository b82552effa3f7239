"""A script: runs a `plasm` command that signals interrupt again and again, until it ends by itself.

    python interrupted.py SEED SIGNAL,SIGNAL,... OUT plasm-arguments

The imports are done once: each attempt is a fork. The first signal comes some time after the start; each other some
time after a checkpoint of the run in OUT that was not there before. It prints how each attempt ended, and the newest
checkpoint at each signal, as JSON.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from plasm import cli


def attempt(arguments: list[str]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            cli.main(arguments, prog_name="plasm")
        except SystemExit as end:
            os._exit(end.code if isinstance(end.code, int) else 1)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(99)
    return pid


def newest(out: Path) -> str:
    return max((path.name for path in out.glob("checkpoints/step_*")), default="")


def wait_for_another(out: Path, before: str, pid: int) -> None:
    """Until there is a newer checkpoint, or the process has ended."""
    while newest(out) == before and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        time.sleep(0.01)


def main() -> None:
    delays, out = random.Random(int(sys.argv[1])), Path(sys.argv[3])
    ends, seen = [], []
    for attempts, number in enumerate([*map(int, filter(None, sys.argv[2].split(","))), 0]):
        before = newest(out)
        pid = attempt(sys.argv[4:])
        if number:
            if attempts == 0:
                time.sleep(delays.uniform(0.3, 1.6))
            else:
                wait_for_another(out, before, pid)
                time.sleep(delays.uniform(0, 0.2))
            os.kill(pid, number)
            seen.append(newest(out))
        _, status = os.waitpid(pid, 0)
        ends.append(-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
    print(json.dumps({"ends": ends, "checkpoints": seen}))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main()
