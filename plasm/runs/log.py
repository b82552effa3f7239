"""The log of a run: a line an epoch in ``log.jsonl``, drawn, and sent to TensorBoard."""

import importlib.util
import json
import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plasm import pictures
from plasm.files import atomic_write, is_count, is_number, parse_json

_logger = logging.getLogger(__name__)


class RunLog:
    """Reads and writes the log of one run: ``rows`` of numbers by name, one an epoch."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.rows: list[dict[str, Any]] = []
        self._board: Any = None

    def read(self, epochs: int, clips_per_epoch: int) -> None:
        """Take up the log of a run that is resumed, without lines past ``epochs``: these come again.

        Raises:
            ValueError: If a line is damaged, or lines are missing or of another run.
        """
        rows = read_rows(self.run, ("loss", "lr", "clips_per_second"))
        self.rows = [row for row in rows if row["epoch"] <= epochs]
        found = [(row["epoch"], row["clips"]) for row in self.rows]
        # All of them, or those since it was moved away.
        if found != [(epoch, epoch * clips_per_epoch) for epoch in range(1 + epochs - len(found), epochs + 1)]:
            some = ", ".join(f"{epoch} ({clips} clips)" for epoch, clips in found[:5])
            raise ValueError(
                f"{self.run / 'log.jsonl'} is not the log of this run, whose checkpoint is of epoch {epochs} with "
                f"{clips_per_epoch} clips each: it has {len(found)} epochs: {some}{', ...' * (len(found) > 5)}. Mend "
                "it, or move it away and go on without it"
            )
        if epochs and not found:
            _logger.warning("%s has no line of the %d epochs so far: going on without", self.run / "log.jsonl", epochs)
        # Where there is no log, none begins: the run's configuration may not be there yet, and a log without one would
        # pass for a damaged run, should the process be killed now.
        if (self.run / "log.jsonl").exists():
            with atomic_write(self.run / "log.jsonl") as beside:
                beside.write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")

    def append(self, row: dict[str, Any]) -> None:
        """Write a line of the log, draw the curves anew, and tell TensorBoard.

        Raises:
            FloatingPointError: If a number is not finite, which no JSON and no average can take.
        """
        if wrong := [name for name, value in row.items() if isinstance(value, float) and not math.isfinite(value)]:
            raise FloatingPointError(
                f"{', '.join(wrong)} of epoch {row.get('epoch')} is not finite and not written: look at the "
                "validation clips"
            )
        self.rows.append(row)
        with (self.run / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            # The checkpoint that follows is on the disk when it is saved: its log has to be, too.
            file.flush()
            os.fsync(file.fileno())
        pictures.curves(self.rows, self.run / "curves.png")
        if board := self._open_board(row["clips"]):
            for name in set(row) - {"epoch", "clips"}:
                board.add_scalar(name, row[name], row["clips"])
            board.flush()

    def close(self) -> None:
        """Let TensorBoard's file and thread go; a further ``append`` takes them anew."""
        if self._board is not None:
            self._board.close()
            self._board = None

    def _open_board(self, clips: int) -> Any:
        if self._board is None and importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            # What an interrupted run wrote past this point is hidden.
            self._board = SummaryWriter(str(self.run / "tensorboard"), purge_step=clips)
        return self._board


def read_rows(run: Path, needed: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The lines of a run's ``log.jsonl``, none if there is no log; a last one that was cut by a kill is left out.

    Every line has an epoch, clips, and the ``needed``.

    Raises:
        ValueError: If another line is not what a run writes.
    """
    file = run / "log.jsonl"
    if file.exists() and not file.is_file():
        raise ValueError(f"{file} is a folder, pipe or device, wanted a log")
    *lines, rest = file.read_bytes().split(b"\n") if file.exists() else [b""]
    needed = ("epoch", "clips", *needed)
    rows = [_row(line, needed, f"line {number} of {file}") for number, line in enumerate(lines, start=1)]
    if not rest.strip(b"\0"):
        return rows
    try:
        return [*rows, _row(rest, needed, f"line {len(rows) + 1} of {file}")]
    except ValueError:
        # What a row that was being written begins with.
        if b'{"epoch": '.startswith(rest[:10]) and not _is_json(rest):
            return rows
        raise


def _is_json(content: bytes) -> bool:
    try:
        parse_json(content, "")
    except ValueError:
        return False
    return True


def _row(line: bytes, needed: Sequence[str], name: str) -> dict[str, Any]:
    row: Any = parse_json(line, name)
    if (
        not isinstance(row, dict)
        or not row.keys() >= set(needed)
        or not all(map(is_number, row.values()))
        or not (is_count(row["epoch"]) and is_count(row["clips"]))
    ):
        raise ValueError(
            f"{name} is damaged: wanted numbers by name, {', '.join(needed)} among them. Mend it, or move the log away "
            "and go on without it"
        )
    return row
