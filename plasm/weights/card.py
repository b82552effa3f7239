"""The model card: what someone who finds weights on the Hub needs to know of them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub

__all__ = ["METRIC_DEFINITIONS", "Card"]

METRIC_DEFINITIONS = {
    "mse": "squared error, summed over the channels and pixels of a frame, averaged over frames and clips; predictions "
    "as they come, pixels in [0, 1]",
    "mae": "absolute error, summed and averaged likewise",
    "ssim": "scikit-image's structural similarity, 7x7 uniform window, data range 1, of predictions clamped to [0, 1], "
    "averaged over frames and clips",
    "ssim_published": "the same with data range 2, which scikit-image before 0.20 took for float images: the one to "
    "compare with published numbers",
    "psnr": "peak signal-to-noise ratio in dB, peak 1, from the mean squared error of each frame, clamped likewise, at "
    "most 100, averaged over frames and clips",
}

_PAPER = (
    "Ping Li, Chenhan Zhang, Zheng Yang, Xianghua Xu, Mingli Song: Pair-wise Layer Attention with Spatial Masking for "
    "Video Prediction, [arXiv 2311.11289](https://arxiv.org/abs/2311.11289)"
)
_PHASES = {"pretrain": "phase 1 (masked autoencoding)", "train": "phase 2 (prediction)"}
# Of the machine, not of the recipe.
_PRIVATE = ("data_dir", "out", "init", "device", "workers")


def without_folder(value: Any) -> Any:
    """An option's value, or of a path the last part: the rest is of one machine."""
    return Path(value).name if isinstance(value, str) and "/" in value else value


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a model card says beyond the model itself.

    Attributes:
        repo: "owner/name" on the Hub; None for a folder that is not there.
        license: Of the weights, as the Hub writes it.
        data: What they were trained on.
        runs: Configuration of each training run, in order: its options, "command" ("pretrain" or "train"), and "clips",
            how many it has seen. Weights of no run have an entry with "weights", their name, alone.
        measured: What ``plasm evaluate`` wrote of these very weights, if it was run.
        picture: A prediction beside its ground truth.
    """

    repo: str | None = None
    license: str = "apache-2.0"
    data: str | None = None
    runs: Sequence[Mapping[str, Any]] = ()
    measured: Mapping[str, Any] | None = None
    picture: Path | None = None

    def render(self, folder: Path, config: Mapping[str, Any], picture: str | None) -> str:
        """Write the card as Markdown.

        Args:
            folder: The one it lies in.
            config: What config.json of the folder holds.
            picture: Name of the picture in the folder.
        """
        data = huggingface_hub.ModelCardData(
            license=self.license.lower(), library_name="timm", tags=["plasm", "timm", "video-prediction"]
        )
        parts = [
            f"---\n{data.to_yaml()}\n---",
            f"# {self.repo or folder.resolve().name}",
            self._introduction(config),
            f"![Input, ground truth, prediction and difference]({picture})" if picture else "",
            "## How to use it\n\n" + self._usage(config),
            "## Data and recipe\n\n" + self._training(),
            "## Metrics\n\n" + self._metrics(),
            f"## Licence and paper\n\nThe weights are under {self.license}. The method: {_PAPER}. Weights and paper "
            "are of different hands unless the owner says otherwise.",
        ]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _introduction(self, config: Mapping[str, Any]) -> str:
        arguments, file = config["model_args"], config["weights"]
        mean, std = config["pretrained_cfg"]["mean"], config["pretrained_cfg"]["std"]
        return (
            f"A `{config['architecture']}` of plasm, which predicts the next "
            f"{arguments['out_frames']} frames of a clip from {arguments['in_frames']}, {arguments['in_chans']} "
            f"channel(s) each, pixels in [0, 1] (normalised by mean {list(mean)}, std {list(std)}).\n\n"
            f"| `{file['file']}` | |\n|---|---|\n| bytes | {file['size']:,} |\n| sha256 | `{file['sha256']}` |\n"
            f"| arguments | `{json.dumps(arguments)}` |"
        )

    def _usage(self, config: Mapping[str, Any]) -> str:
        name = f"hf-hub:{self.repo}" if self.repo else "local-dir:FOLDER"
        arguments = config["model_args"]
        _, height, width = config["pretrained_cfg"]["input_size"]
        shape = f"{arguments['in_frames']}, {arguments['in_chans']}, {height}, {width}"
        return (
            "```python\nimport timm, torch\nimport plasm  # registers its models with timm\n\n"
            f'model = timm.create_model("{name}", pretrained=True).eval()\n'
            f"clip = torch.rand(1, {shape})  # (batch, frames, channels, height, width), any height and width\n"
            "future = model.predict(clip)  # or model.predict(clip, num_frames=40): any horizon\n```"
        )

    def _training(self) -> str:
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
        return "\n".join(lines)

    def _metrics(self) -> str:
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
        """What prints the metrics again, of the uploaded weights where they are."""
        options = (self.measured or {}).get("options", "")
        return f"plasm evaluate --weights {f'hf-hub:{self.repo}' if self.repo else 'FOLDER'} {options}".rstrip()
