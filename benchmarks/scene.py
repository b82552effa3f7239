"""Videos of a scene in colour: shapes that turn, bounce off the borders and collide.

Usage: python benchmarks/scene.py FOLDER [VIDEOS]

writes them as MP4 files, 60 frames of 120 x 160 each, always the same ones. Needs the extra ``video``.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from plasm.pictures import movie

HEIGHT, WIDTH, FRAMES, RADIUS = 120, 160, 60, 18.0
BACKGROUND, COLOURS = (24, 28, 44), ((240, 160, 40), (60, 190, 220), (230, 70, 110))


def motion(seed: int) -> np.ndarray:
    """Centres (x, y) and angles of three shapes, float (frames, shapes, 3): discs of equal mass, without friction."""
    rng = np.random.default_rng(seed)
    place = np.array([[30.0, 30.0], [80.0, 90.0], [130.0, 40.0]]) + rng.uniform(-8, 8, (3, 2))
    heading = rng.uniform(0, 2 * np.pi, 3)
    speed = rng.uniform(2.5, 5.0, (3, 1)) * np.stack([np.cos(heading), np.sin(heading)], 1)  # pixels a frame
    angle, spin = rng.uniform(0, 2 * np.pi, 3), rng.uniform(0.05, 0.15, 3) * rng.choice([-1, 1], 3)
    states, parts = [], 8
    for step in range(FRAMES * parts):
        if step % parts == 0:
            states.append(np.column_stack([place, angle]))
        place, angle = place + speed / parts, angle + spin / parts
        low, high = place < RADIUS, place > np.array([WIDTH, HEIGHT]) - RADIUS
        speed = np.where(low, np.abs(speed), np.where(high, -np.abs(speed), speed))
        for a, b in ((0, 1), (0, 2), (1, 2)):
            apart = place[a] - place[b]
            normal = apart / np.linalg.norm(apart)
            closing = (speed[a] - speed[b]) @ normal
            if np.linalg.norm(apart) < 2 * RADIUS and closing < 0:
                speed[a], speed[b] = speed[a] - closing * normal, speed[b] + closing * normal
                spin[[a, b]] = spin[[b, a]]
    return np.stack(states)


def video(seed: int) -> torch.Tensor:
    """One video: uint8 values as floats in [0, 1], (frames, 3, HEIGHT, WIDTH)."""
    frames = []
    for state in motion(seed):
        image = Image.new("RGB", (2 * WIDTH, 2 * HEIGHT), BACKGROUND)
        for (x, y, angle), colour, sides in zip(state, COLOURS, (3, 4, 5), strict=True):
            corners = angle + 2 * np.pi * np.arange(sides) / sides
            points = 2 * np.column_stack([x + RADIUS * np.cos(corners), y + RADIUS * np.sin(corners)])
            ImageDraw.Draw(image).polygon([tuple(point) for point in points], fill=colour)
        frames.append(np.asarray(image.resize((WIDTH, HEIGHT), Image.Resampling.BOX)))
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2) / 255


def main(folder: Path, count: int = 100) -> None:
    """Write the videos."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        movie(video(seed), folder / f"{seed:03}.mp4", rate=25)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
