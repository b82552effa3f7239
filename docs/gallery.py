"""The gallery: for each published weight in the package an animation of forecasts of the sample clips.

Usage: python docs/gallery.py [FOLDER]

writes the animations into a folder, or, without one, the README's into ``docs/images``. The site makes its own at build
time, from the weights and sample clips in the package.
"""

import sys
import tempfile
from functools import cache
from pathlib import Path

import plasm
from plasm import weights
from plasm.data import SAMPLES, read_clips
from plasm.pictures import animation

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
    animation(shown, model.predict(shown), target, file, columns=2)


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
            animate(row.name, file, clips=[1, 3, 4, 6])
            found[f"{row.name}.gif"] = file.read_bytes()
    return found


def figures() -> str:
    """The gallery's figures, as HTML in Markdown."""
    lines = ['<div class="gallery" markdown>', ""]
    for row in in_package():
        caption = f"`{row.name}`: trained on {row.clips:,} clips of {row.data}, test MSE {row.metrics['mse']:.1f}"
        lines += ["<figure markdown>", f"![Input, then truth, forecast and error](images/gallery/{row.name}.gif)",
                  f"<figcaption markdown>{caption}</figcaption>", "</figure>", ""]  # fmt: skip
    return "\n".join([*lines, "</div>"])


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
