"""Feed plasm what is damaged, thousands of times, and count what comes of it.

Usage: python tools/campaign.py weights|clips|kills --n 1000 --seed S

weights: files and folders of weights, mutated. clips: malformed arrays, images and videos. kills: training runs that
are killed at random moments and resumed. Each prints a table; a case that is wrongly taken or crashes is a failure, is
named, and makes the command fail. A case is a function of the seed and its number: `--only NUMBER` runs it alone.
"""

import contextlib
import importlib
import multiprocessing
import sys
import tempfile
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import click
import numpy as np
from campaigns.case import Campaign, Outcome, judge
from tqdm import tqdm

CAMPAIGNS = ("weights", "clips", "kills")
_SECONDS = 120.0
"""A case that takes longer has hung."""


def _load(name: str) -> Campaign:
    campaign: Campaign = importlib.import_module(f"campaigns.{name}").CAMPAIGN
    return campaign


def _work(name: str, seed: int, numbers: list[int], folder: Path, results: Connection) -> None:
    """Run cases in a process of its own, which a case may bring down."""
    campaign = _load(name)
    shared = folder / "shared"
    shared.mkdir(exist_ok=True)
    state = campaign.prepare(shared)
    for number in numbers:
        with tempfile.TemporaryDirectory(dir=folder) as own:
            results.send((number, "begun", ""))
            try:
                case = campaign.make(np.random.default_rng([seed, number]), number, Path(own), state)
            except Exception:
                results.send((number, Outcome("the campaign itself", "crashed", traceback.format_exc()), ""))
                continue
            results.send((number, judge(case), ""))


def outcomes(name: str, seed: int, numbers: list[int], folder: Path) -> Iterator[tuple[int, Outcome]]:
    """What came of each case. When one brings its process down or hangs, the next process goes on after it."""
    left = list(numbers)
    while left:
        ours, theirs = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("spawn").Process(target=_work, args=(name, seed, left, folder, theirs))
        process.start()
        theirs.close()
        begun: int | None = None
        try:
            while left:
                if not ours.poll(_SECONDS):
                    raise TimeoutError
                number, outcome, _ = ours.recv()
                begun = number
                if isinstance(outcome, Outcome):
                    left.remove(number)
                    yield number, outcome
        except (EOFError, TimeoutError) as error:
            if begun is None or begun not in left:
                raise RuntimeError(f"the campaign {name} does not start") from error
            left.remove(begun)
            how = "hung" if isinstance(error, TimeoutError) else f"brought its process down ({process.exitcode})"
            yield begun, Outcome("?", "crashed", how)
        finally:
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
@click.argument("name", type=click.Choice(CAMPAIGNS))
@click.option("--n", default=1000, show_default=True, type=click.IntRange(min=1), help="How many cases.")
@click.option("--seed", default=0, show_default=True, help="Of the cases.")
@click.option("--only", type=int, help="Number of a single case to run.")
def main(name: str, n: int, seed: int, only: int | None) -> None:
    """Run a campaign and print what came of it."""
    numbers = list(range(n)) if only is None else [only]
    found: dict[int, Outcome] = {}
    # Ctrl-C ends a long one early, with the table of what was tried by then.
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(KeyboardInterrupt):
        for number, outcome in tqdm(outcomes(name, seed, numbers, Path(folder)), name, len(numbers), unit="case"):
            found[number] = outcome
            if outcome.what in ("wrongly taken", "crashed") or only is not None:
                tqdm.write(f"case {number} ({outcome.kind}) {outcome.what}: {outcome.why}", file=sys.stderr)
    click.echo(table(found))
    if any(outcome.what in ("wrongly taken", "crashed") for outcome in found.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
