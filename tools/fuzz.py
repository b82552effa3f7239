"""Fuzzing: plasm is given damaged and hostile files, thousands of times, and what comes of it is counted.

Usage: python tools/fuzz.py weights|clips|exports|runs|kills --n 1000 --seed S

weights: files and folders of weights, mutated or made to harm. clips: malformed arrays, images and videos, playlists,
and files that declare more than a machine holds. exports: .onnx and .pt2 files. runs: folders of training runs that are
damaged, used twice at once, or resumed on other data. kills: training runs of both phases that are killed at random
moments, or lose a loader process, and are resumed. Each prints a table; a case that is wrongly taken or crashes is a
failure, is named, and makes the command fail. A case is a function of the seed and its number: `--only NUMBER` runs it
alone. Cases run in a process with a limit on its memory and, where the kernel allows it, without a network.
"""

import contextlib
import importlib
import multiprocessing
import os
import signal
import sys
import tempfile
import traceback

from fuzzing.isolation import limit_memory, without_network

if multiprocessing.parent_process() is not None:
    # Before numpy starts threads, of which each would keep the network.
    without_network()

from collections import Counter, defaultdict
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import click
import numpy as np
from fuzzing.case import Fuzzer, Outcome, judge
from tqdm import tqdm

FUZZERS = ("weights", "clips", "exports", "runs", "kills")
_SECONDS = 120.0
"""A case that takes longer has hung."""
_PREPARATION = 900.0
_STARTS = 3
"""So often a fuzzer may fail to start in a row, before what is left is given up."""
_MEMORY = 4 << 30
_READ_LIMIT = "1"
"""GiB that plasm may take to read a clip here, less than the limit above."""


def _load(name: str) -> Fuzzer:
    fuzzer: Fuzzer = importlib.import_module(f"fuzzing.{name}").FUZZER
    return fuzzer


def _work(name: str, seed: int, numbers: list[int], folder: Path, results: Connection) -> None:
    """Run cases in a process of its own, which a case may bring down."""
    # Whatever a case starts ends with this process.
    os.setsid()
    os.environ["PLASM_READ_LIMIT"] = _READ_LIMIT
    fuzzer = _load(name)
    shared = folder / "shared"
    shared.mkdir(exist_ok=True)
    state = fuzzer.prepare(shared)
    limit_memory(_MEMORY)
    results.send(("prepared", None))
    for number in numbers:
        with tempfile.TemporaryDirectory(dir=folder) as own:
            results.send((number, None))
            try:
                case = fuzzer.create(np.random.default_rng([seed, number]), number, Path(own), state)
            except Exception:
                results.send((number, Outcome("the fuzzer itself", "crashed", traceback.format_exc())))
                continue
            results.send((number, judge(case)))


def outcomes(name: str, seed: int, numbers: list[int], folder: Path) -> Iterator[tuple[int, Outcome]]:
    """What came of each case. When one brings its process down or hangs, the next process goes on after it."""
    left, starts = list(numbers), 0
    while left:
        ours, theirs = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("spawn").Process(target=_work, args=(name, seed, left, folder, theirs))
        process.start()
        theirs.close()
        begun: int | None = None
        starts += 1
        try:
            patience = _PREPARATION
            while left:
                if not ours.poll(patience):
                    raise TimeoutError
                number, outcome = ours.recv()
                patience = _SECONDS
                if number == "prepared":
                    continue
                begun, starts = number, 0
                if isinstance(outcome, Outcome):
                    left.remove(number)
                    yield number, outcome
        except (EOFError, ConnectionError, TimeoutError) as error:
            how = "hung" if isinstance(error, TimeoutError) else f"brought its process down ({process.exitcode})"
            if begun in left:
                left.remove(begun)
                yield begun, Outcome("?", "crashed", how)
            elif starts >= _STARTS:
                # What was found by then is not lost.
                yield from ((number, Outcome("not tried", "crashed", f"the fuzzer {how}")) for number in left)
                left = []
        finally:
            _end(process)


def _end(process: multiprocessing.process.BaseProcess) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if process.pid is not None:
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


def table(found: dict[int, Outcome]) -> str:
    """The outcomes of each kind of case, as Markdown."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for outcome in found.values():
        counts[outcome.kind][outcome.what] += 1
    columns = ("refused", "taken", "wrongly taken", "crashed")
    lines = [
        "| kind | tried | refused with a clear error | correct | wrong | crashed |",
        "|---" * 6 + "|",
    ]
    rows = [*sorted(counts.items()), ("all", sum(counts.values(), Counter()))]
    for kind, row in rows:
        lines.append(f"| {kind} | {row.total():,} | " + " | ".join(f"{row[column]:,}" for column in columns) + " |")
    return "\n".join(lines)


@click.command()
@click.argument("name", type=click.Choice(FUZZERS))
@click.option("--n", default=1000, show_default=True, type=click.IntRange(min=1), help="How many cases.")
@click.option("--seed", default=0, show_default=True, help="Of the cases.")
@click.option("--only", type=int, multiple=True, help="Number of a case to run, and no others; may be repeated.")
def main(name: str, n: int, seed: int, only: tuple[int, ...]) -> None:
    """Run a fuzzer and print what came of it."""
    numbers = list(only or range(n))
    found: dict[int, Outcome] = {}
    # Ctrl-C, or what ends a batch job, ends a long one early, with the table of what was tried by then.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folders = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    with folders as folder, contextlib.suppress(KeyboardInterrupt):
        for number, outcome in tqdm(outcomes(name, seed, numbers, Path(folder)), name, len(numbers), unit="case"):
            found[number] = outcome
            if outcome.what in ("wrongly taken", "crashed") or only:
                tqdm.write(f"case {number} ({outcome.kind}) {outcome.what}: {outcome.why}", file=sys.stderr)
    click.echo(table(found))
    if any(outcome.what in ("wrongly taken", "crashed") for outcome in found.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
