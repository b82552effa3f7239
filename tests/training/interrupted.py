"""A script: runs a `plasm` command that signals interrupt again and again, until it ends by itself.

    python interrupted.py SEED SIGNAL,SIGNAL,... plasm-arguments

The imports are done once: each attempt is a fork. It prints how each attempt ended, as JSON.
"""

import json
import os
import random
import signal
import sys
import time

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


def main() -> None:
    delays = random.Random(int(sys.argv[1]))
    ends = []
    for number in [*map(int, filter(None, sys.argv[2].split(","))), 0]:
        pid = attempt(sys.argv[3:])
        if number:
            time.sleep(delays.uniform(0.3, 1.6))
            os.kill(pid, number)
        _, status = os.waitpid(pid, 0)
        ends.append(-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
    print(json.dumps(ends))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main()
