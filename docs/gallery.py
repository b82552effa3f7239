"""The gallery: for each published weight in the package an animation of forecasts of the sample clips.

Usage: python docs/gallery.py [FOLDER]

writes the animations into a folder, or, without one, the README's into ``docs/images``. The site makes its own at build
time, from the weights and sample clips in the package.
"""

import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import plasm
from plasm import weights
from plasm.data import SAMPLES, read_clips
from plasm.pictures import animation

# Of the eight sample clips: digits apart, crossing, and one on the other.
CLIPS = (1, 4, 3, 6)
README = Path(__file__).parent / "images" / "prediction.gif"


def animate(name: str, file: Path, clips: list[int]) -> None:
    """Animate forecasts of some of the sample clips: ground truth, prediction and difference, side by side.

    Args:
        name: Of the weights.
        file: GIF to write.
        clips: Which of the eight.
    """
    model = plasm.create_model(name, pretrained=True).eval()
    frames = model.in_frames
    samples = read_clips(SAMPLES / "clips.npz", model.in_chans)[clips]
    shown, target = samples[:, :frames], samples[:, frames : frames + model.out_frames]
    animation(shown, model.predict(shown), target, file, columns=len(clips))


def in_package() -> list[weights.Entry]:
    """Published weights whose animation needs nothing but the package."""
    return [row for row in weights.entries() if row.repo is None and row.data == "mmnist"]


@cache
def pictures() -> dict[str, bytes]:
    """Every animation of the site, by the name of its file."""
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "animation.gif"
        found = {}
        for row in in_package():
            for clip in CLIPS:
                animate(row.name, file, [clip])
                found[f"{row.name}-{clip}.gif"] = file.read_bytes()
    return found


def _grid(row: weights.Entry, clips: Sequence[int]) -> str:
    images = (f"![Clip {clip}: input, then truth, forecast and error](images/gallery/{row.name}-{clip}.gif)"
              for clip in clips)  # fmt: skip
    return "\n".join(['<div class="gallery" markdown>', "", *images, "", "</div>"])


def hero() -> str:
    """Two animations of the default weights, for the home page."""
    return _grid(weights.entry("plasm_mmnist_tiny"), CLIPS[:2])


def sections() -> str:
    """The gallery: a section for each set of weights."""
    parts = []
    for row in in_package():
        story = f"Trained on {row.clips:,} clips of {row.data}; MSE on the test set {row.metrics['mse']:.1f}."
        parts.append(f"## {row.name}\n\n{story}\n\n{_grid(row, CLIPS)}")
    return "\n\n".join(parts)


def main() -> None:
    """Write the animations."""
    if len(sys.argv) == 1:
        animate("plasm_mmnist_tiny", README, clips=[1, 4])
        print(f"{README}: {README.stat().st_size / 1e3:.0f} kB")
        return
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures().items():
        (folder / name).write_bytes(picture)
        print(f"{folder / name}: {len(picture) / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
