"""A run on one page of Markdown, with its pictures."""

import platform
from dataclasses import asdict

import torch
from torch import nn

from plasm._version import __version__
from plasm.files import atomic_write

from .config import RunConfig
from .folder import BEFORE_DECAY, RunFolder

_TITLES = {"pretrain": "Phase 1: rebuilding masked clips", "train": "Phase 2: predicting frames"}


def write_report(folder: RunFolder, config: RunConfig, model: nn.Module, device: torch.device, processes: int) -> None:
    """Write ``report.md`` of a run that has ended.

    Args:
        folder: Of the run, with its log.
        config: Of the run.
        model: That was trained.
        device: Where it was trained.
        processes: How many trained together.
    """
    measured = [row for row in folder.log.rows if "val_mse" in row]
    best, last = min(measured, key=lambda row: row["val_mse"]), folder.log.rows[-1]
    speeds = sorted(row["clips_per_second"] for row in folder.log.rows)
    hours = sum(last["clips"] / config.epochs / row["clips_per_second"] for row in folder.log.rows) / 3600
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    facts = {
        "model": f"`{config.model}`, {total / 1e6:.2f} M parameters, {trained / 1e6:.2f} M of them trained",
        "data": f"`{config.data}`",
        "clips seen": f"{last['clips']:,} in {last['epoch']} epochs",
        "validation MSE": f"{last['val_mse']:.2f} at the end, {best['val_mse']:.2f} at best (epoch {best['epoch']})",
        "training loss": f"{last['loss']:.6f} in the last epoch",
        "speed": f"{speeds[len(speeds) // 2]:.1f} clips a second (median of the epochs), {hours:.2f} hours",
        "on": f"{processes} x {where}",
        "with": f"plasm {__version__}, torch {torch.__version__}, Python {platform.python_version()}",
    }
    samples = sorted(folder.path.glob("samples/*.png"))
    parts = [
        f"# {folder.path.resolve().name}",
        _TITLES[config.command],
        _table(facts),
        "![loss, validation MSE and learning rate](curves.png)",
        f"![validation clips]({samples[-1].relative_to(folder.path)})" if samples else "",
        "Validation MSE is summed over a frame and averaged over frames and clips that were held out of training. The "
        "weights are those of the end" + (", averaged (`ema`)." if config.ema else "."),
        "## Configuration",
        _table({f"`{name}`": f"`{value}`" for name, value in asdict(config).items() if value is not None}),
        f"`config.toml` repeats the run: `plasm {config.command} --config config.toml --out OTHER`."
        if not (folder.path / BEFORE_DECAY).is_file()
        else f"This is from its decay on; before, the run had `{BEFORE_DECAY}`.",
    ]
    with atomic_write(folder.path / "report.md") as beside:
        beside.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")


def _table(rows: dict[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])
