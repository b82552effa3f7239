"""The model card: what someone who finds weights on the Hub needs to know of them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import huggingface_hub

from . import manifest

METRIC_DEFINITIONS: dict[str, str] = json.loads(Path(__file__).with_name("metrics.json").read_text(encoding="utf-8"))
"""Definition of each metric of a card, by its name."""

TASK = "video-to-video"
"""The Hub's name of what these models do: from the frames of a clip to those that follow."""

_TEMPLATE = Path(__file__).with_name("card_template.md")
_PHASES = {"pretrain": "phase 1 (masked autoencoding)", "train": "phase 2 (prediction)"}
# Of the machine, not of the recipe.
_PRIVATE = ("data_dir", "out", "init", "device", "workers")


def without_folder(value: Any) -> Any:
    """An option's value, or of a path the last part: the rest is of one machine."""
    # Windows' names have either slash.
    return PureWindowsPath(value).name if isinstance(value, str) and {"/", "\\"} & set(value) else value


@dataclass(frozen=True)
class Paper:
    """A paper as a card cites it: title, address, BibTeX, and authors as they are printed."""

    title: str
    url: str
    citation: str
    authors: str = ""


@dataclass(frozen=True, kw_only=True)
class Card:
    """The content of a model card beyond the model itself.

    Attributes:
        repo: "owner/name" on the Hub; None for a folder that is not there.
        license: Of the weights, as the Hub writes it; None if nobody said.
        data: What they were trained on.
        runs: Configuration of each training run, in order: its options, "command" ("pretrain" or "train"), and "clips",
            how many it has seen. Weights of no run have an entry with "weights", their name, alone.
        measured: What ``plasm evaluate`` wrote of these very weights, if it was run.
        picture: A prediction beside its ground truth.
        published: The manifest's row, of weights that are those of the package.
    """

    repo: str | None = None
    license: str | None = None
    data: str | None = None
    runs: Sequence[Mapping[str, Any]] = ()
    measured: Mapping[str, Any] | None = None
    picture: Path | None = None
    published: manifest.Entry | None = None

    @classmethod
    def of_published(cls, row: manifest.Entry) -> "Card":
        """The card of published weights: what the manifest says of them."""
        return cls(license=row.license.lower(), data=row.data, published=row)

    def render(self, folder: Path, config: Mapping[str, Any], picture: str | None, paper: Paper | None = None) -> str:
        """Write the card as Markdown, with the metadata that the Hub reads.

        Args:
            folder: The one it lies in.
            config: What config.json of the folder holds.
            picture: Name of the picture in the folder.
            paper: That it cites.
        """
        arguments, cfg = config["model_args"], config["pretrained_cfg"]
        _, height, width = cfg["input_size"]
        title = self.repo or folder.resolve().name
        arxiv = paper.url.partition("arxiv.org/abs/")[2] if paper else ""
        card = huggingface_hub.ModelCard.from_template(
            self._data(title),
            template_path=str(_TEMPLATE),
            title=title,
            architecture=config["architecture"],
            arguments=arguments,
            arguments_json=json.dumps(arguments),
            mean=list(cfg["mean"]),
            std=list(cfg["std"]),
            file=config["weights"],
            size=f"{config['weights']['size']:,}",
            picture=picture,
            name=f"hf-hub:{self.repo}" if self.repo else "local-dir:FOLDER",
            shape=f"{arguments['in_frames']}, {arguments['in_chans']}, {height}, {width}",
            training=self._training(),
            metrics=self._metrics(),
            license=self.license,
            family=paper,
            paper=f"arXiv {arxiv}" if arxiv else paper and paper.url,
        )
        return f"{str(card).rstrip()}\n"

    def _data(self, title: str) -> "huggingface_hub.ModelCardData":  # a string: the Hub's library imports it late
        """Metadata for the Hub: licence, task, data set, and the metrics of ``plasm evaluate`` if there are."""
        measured = self.measured or {}
        results = [
            huggingface_hub.EvalResult(
                task_type=TASK, dataset_type=measured["data"], dataset_name=measured["data"], dataset_split="test",
                metric_type=key, metric_value=round(value, 4),
            )
            for key, value in measured.get("metrics", {}).get("model", {}).items()
            if key in METRIC_DEFINITIONS
        ]  # fmt: skip
        return huggingface_hub.ModelCardData(
            license=self.license and self.license.lower(), library_name="timm", pipeline_tag=TASK,
            tags=["plasm", "timm", "video-prediction"], datasets=[self.data] if self.data else None,
            metrics=[result.metric_type for result in results] or None,
            model_name=title if results else None, eval_results=results or None,
        )  # fmt: skip

    def _training(self) -> str:
        if row := self.published:
            told = f"The weights `{row.name}` of plasm, trained on `{row.data}`: {row.clips:,} clips seen."
            before = [f"Phase 1: {row.pretraining}."] if row.pretraining else []
            return "\n\n".join([told, *before, *([row.note] if row.note else [])])
        if not self.runs:
            return "Its maker said nothing about them."
        last = [run for run in self.runs if run.get("command") == "train" and run.get("data") == self.data]
        clips = sum(run.get("clips") or 0 for run in last)
        lines = [f"Trained on `{self.data}`" + (f", {clips:,} clips seen in phase 2." if clips else "."), ""]
        if all(run.get("command") == "train" for run in self.runs):
            lines.append(f"* {_PHASES['pretrain']}: none")
        for run in self.runs:
            shown = {key: value for key, value in run.items() if key not in _PRIVATE and value not in ({}, None)}
            if "data_args" in shown:
                shown["data_args"] = {name: without_folder(value) for name, value in shown["data_args"].items()}
            title = _PHASES.get(shown.pop("command", ""), "earlier")
            lines.append(f"* {title}: " + ", ".join(f"{key} {value}" for key, value in shown.items()))
        published = {row.name: row.note for row in manifest.entries() if row.note}
        began = [run["weights"] for run in self.runs if run.get("weights") in published]
        lines += [f"\nOf `{name}`, with which it began: {published[name]}" for name in dict.fromkeys(began)]
        return "\n".join(lines)

    def _metrics(self) -> str:
        if row := self.published:
            lines = [f"With plasm's file of them, by\n\n```bash\n{row.command}\n```\n"]
            known = {key: text for key, text in METRIC_DEFINITIONS.items() if key in row.metrics}
            return "\n".join([*lines, *(f"* `{key}` {row.metrics[key]:.4f}: {text}" for key, text in known.items())])
        if self.measured is None:
            return "Not measured: `plasm evaluate --weights RUN` was not run on these very weights."
        forecasts = self.measured["metrics"]
        # Small frames have no SSIM.
        known = {key: text for key, text in METRIC_DEFINITIONS.items() if all(key in m for m in forecasts.values())}
        lines = [
            f"{self.measured['num_clips']:,} test clips of `{self.measured['data']}`, on {self.measured['date']}, with "
            f"this very file, by\n\n```bash\n{self.command}\n```\n",
            "| forecast | " + " | ".join(known) + " |",
            "|---" * (1 + len(known)) + "|",
        ]
        for name, means in forecasts.items():
            lines.append(f"| {name} | " + " | ".join(f"{means[key]:.4f}" for key in known) + " |")
        return "\n".join([*lines, "", *(f"* `{key}`: {text}" for key, text in known.items())])

    @property
    def command(self) -> str:
        """The command that repeats the measurement, of the uploaded weights where there are some."""
        options = (self.measured or {}).get("options", "")
        return f"plasm evaluate --weights {f'hf-hub:{self.repo}' if self.repo else 'FOLDER'} {options}".rstrip()
