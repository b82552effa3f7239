"""The folder of a run: everything that a run leaves, and who wrote it.

RUN/
  config.toml         the configuration: `plasm train --config RUN/config.toml --out OTHER` repeats the run
  config_before_decay.toml  of a run of wsd that got another average or rollout with its decay: what it had until then
  history.json        where there were any, the runs before it whose weights it began with
  log.jsonl           a line an epoch
  curves.png          loss, validation MSE and learning rate, drawn
  samples/            validation clips: input, ground truth, prediction, difference
  checkpoints/        the last two states, for --resume
  tensorboard/        where TensorBoard is installed
  model.safetensors   weights, and
  config.json         the model they are of, in timm's format
  report.md           the run on a page, written at its end
"""

import errno
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from plasm import pictures, weights
from plasm.config import read_config
from plasm.files import atomic_write
from plasm.models import ModelInterface

from .config import CHANGE_WITH_DECAY, RunConfig, config_differences
from .log import RunLog

BEFORE_DECAY = "config_before_decay.toml"


class RunFolder:
    """Reads and writes the folder of one run.

    Args:
        path: The folder.

    Attributes:
        log: Its log.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = RunLog(path)

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints for ``--resume``."""
        return self.path / "checkpoints"

    def check(self, config: RunConfig, resume: bool) -> None:
        """Check, before hours are spent, that this run may write here.

        Raises:
            FileExistsError: If another run lies here.
            ValueError: If the run that lies here and is to be resumed had another configuration.
        """
        file = self.path / "config.toml"
        if not any((self.path / name).exists() for name in ("config.toml", "checkpoints", "log.jsonl")):
            return
        if not resume:
            raise FileExistsError(f"{self.path} holds a run already; choose another --out, or --resume it")
        if differences := config_differences(config, file):
            raise ValueError(f"{self.path} cannot be resumed with another configuration: {'; '.join(differences)}")

    def create(self, needed_bytes: int) -> None:
        """Make the folder, and check that its disk has room; what lies in it stays as it is.

        Args:
            needed_bytes: What the run is going to write, about.

        Raises:
            OSError: If the folder cannot be written, or its disk has no room.
        """
        with self._named_in_errors():
            self.path.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.path).free
            if free < needed_bytes:
                raise OSError(
                    errno.ENOSPC,
                    f"its disk has {free / 2**20:,.0f} MiB free; the run needs about "
                    f"{needed_bytes / 2**20:,.0f} MiB, most of it for checkpoints",
                )

    def save_config(self, config: RunConfig, history: list[dict[str, Any]]) -> None:
        """Write the configuration and the history of the run, over those of the run that it goes on from.

        Args:
            config: Of the run.
            history: Of the weights it begins with, as ``read_history`` gives it.

        Raises:
            OSError: If the folder cannot be written.
        """
        with self._named_in_errors():
            noted = self.path / "config.toml"
            if noted.is_file():
                earlier = type(config).create(read_config(type(config), noted))
                if any(getattr(earlier, name, None) != getattr(config, name, None) for name in CHANGE_WITH_DECAY):
                    earlier.save(self.path / BEFORE_DECAY)
            config.save(noted)
            if history:
                with atomic_write(self.path / "history.json") as beside:
                    beside.write_text(json.dumps(history, indent=2) + "\n", encoding="utf-8")
        for remains in self.path.glob(".*.[0-9]*"):
            # Of a process that was killed while it wrote beside.
            remains.unlink(missing_ok=True)

    @contextmanager
    def _named_in_errors(self) -> Iterator[None]:
        """Say in an OSError that it is this folder that cannot be written."""
        try:
            yield
        except OSError as error:
            raise type(error)(error.errno, f"{self.path} cannot be written: {error.strerror}") from error

    def draw(self, shown: Tensor, target: Tensor, prediction: Tensor, epoch: int, follows: bool) -> None:
        """Draw clips of the validation set, (B, T, C, H, W) each; ``follows`` as for ``pictures.strip``."""
        folder = self.path / "samples"
        folder.mkdir(exist_ok=True)
        if shown.shape[2] > 3:
            # More channels than colours: the first, in gray.
            shown, target, prediction = (clips[:, :, :1] for clips in (shown, target, prediction))
        drawn = pictures.strip(shown, prediction, target, follows)
        pictures.save_png(drawn, folder / f"epoch_{epoch:04d}.png")

    def save_weights(self, model: nn.Module, tensors: dict[str, Tensor], phase: str) -> None:
        """Write ``model.safetensors``, and of a model that timm made ``config.json``."""
        if ModelInterface.of(model).pretrained_cfg:
            weights.save_pretrained(model, self.path, {"phase": phase}, tensors)
        else:
            weights.save_tensors(tensors, self.path / "model.safetensors")

    def save_bad_batch(self, clips: Tensor, index: Tensor) -> Path:
        """Write the clips (B, T + T', C, H, W) and indices (B,) of a step that went wrong."""
        file = self.path / "bad_batch.safetensors"
        weights.save_tensors({"clips": clips, "index": index}, file)
        return file
