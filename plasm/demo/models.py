"""The models of the page: ONNX files, and what the page has to know of each.

Shapes: B clips, T input frames, T' output frames, C channels, H x W pixels.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

SITE = Path(__file__).parent / "site"
LIST = "models.json"


@dataclass(frozen=True, kw_only=True)
class PageModel:
    """One model that the page can run.

    Attributes:
        name: What the page calls it.
        file: Of ONNX, relative to the page.
        size: Bytes of the file.
        sha256: Of the file.
        weights_sha256: Of the safetensors file it was made from.
        in_frames: T.
        out_frames: T'.
        channels: C.
        height: H.
        width: W.
        license: Of the weights.
        about: A line on what it was trained on, and how well it does.
    """

    name: str
    file: str
    size: int
    sha256: str
    weights_sha256: str
    in_frames: int
    out_frames: int
    channels: int
    height: int
    width: int
    license: str
    about: str


def packaged_models() -> tuple[PageModel, ...]:
    """The models that ship with the page."""
    return tuple(PageModel(**row) for row in json.loads((SITE / LIST).read_text(encoding="utf-8")))


def write_list(models: Sequence[PageModel]) -> str:
    """The list as the page reads it."""
    return json.dumps([asdict(model) for model in models], indent=2) + "\n"
