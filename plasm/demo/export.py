"""Models as the page takes them: ONNX files for frames of one size. Needs the extra ``plasm[onnx]``.

Weights that half precision holds without loss are stored in it and computed with in single precision: such a file is
half the size, and forecasts the same.

Shapes: B clips, T input frames, T' output frames, C channels, H x W pixels.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from plasm import weights
from plasm.data import SAMPLES

from .models import PageModel

__all__ = ["export_model"]

TOLERANCE = 1e-3
"""Largest difference from torch that a forecast may have, pixels being in [0, 1]."""


def export_model(source: str, folder: Path) -> PageModel:
    """Write a model as ONNX into a folder, for the page, once it was seen to forecast what torch does.

    Args:
        source: Weights, by any name that ``plasm predict --weights`` takes.
        folder: Where to, as ``models/NAME.onnx``.

    Raises:
        ImportError: If the exporter is not installed.
        ValueError: If the page cannot show what the model forecasts, or the file forecasts something else.
        OSError: If the weights cannot be had, or the file not be written.
        plasm.weights.WeightsNotFoundError: If no such weights are published.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"weights other than those that ship have to be exported, which needs more ({error}): "
            "pip install 'plasm[onnx]'"
        ) from error
    from plasm.training import load_model

    model = load_model(None, source).eval()
    described = _describe(model, source)
    clip = _sample_clip(described)
    program = torch.onnx.export(
        model, (clip,), dynamo=True, input_names=["clip"], output_names=["forecast"], verbose=False
    )
    assert program is not None
    proto = program.model_proto
    _store_in_half(proto)
    _forget_source(proto)
    metadata = {key: str(value) for key, value in described.items()}
    onnx.helper.set_model_props(proto, metadata)
    content = proto.SerializeToString()
    difference = _difference(model, content, clip)
    if not difference <= TOLERANCE:
        raise ValueError(f"the export of {source} is off by {difference:.2g} on a sample clip, more than {TOLERANCE}")
    file = f"models/{described['name']}.onnx"
    (folder / "models").mkdir(parents=True, exist_ok=True)
    with weights.write_beside(folder / file) as beside:
        beside.write_bytes(content)
    return PageModel(file=file, size=len(content), sha256=weights.file_sha256(folder / file), **described)


def _describe(model: nn.Module, source: str) -> dict[str, Any]:
    """All of a ``PageModel`` but its file."""
    from plasm.training import frame_counts

    in_frames, out_frames = frame_counts(model)
    channels, height, width = getattr(model, "pretrained_cfg", {}).get("input_size") or (1, 64, 64)
    channels = getattr(model, "in_chans", channels)
    if channels not in (1, 3):
        raise ValueError(f"the page shows gray or coloured frames; {source} is of a model with {channels} channels")
    row = _published(source)
    path = Path(source)
    if row:
        scores = row.metrics
        about = f"Test MSE {scores['mse']:.1f}, SSIM {scores['ssim']:.3f}, after {row.clips:,} clips."
        name, file = row.name, weights.find(row.model, row.tag)
    else:
        about, name = "", path.stem if path.suffix else path.name
        name = "".join(c if c.isalnum() or c in "._-" else "_" for c in name)
        file = path / "model.safetensors" if path.is_dir() else path
    return {
        "name": name,
        "weights_sha256": weights.file_sha256(file) if file.is_file() else "",
        "in_frames": in_frames,
        "out_frames": out_frames,
        "channels": channels,
        "height": height,
        "width": width,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "license": row.license if row else "",
        "about": about,
    }


def _published(source: str) -> weights.Entry | None:
    """The row of published weights of this name; None if it is the name of something else."""
    model, _, tag = source.partition(".")
    return weights.entry(model, tag or None) if weights.tags(model) and not Path(source).exists() else None


def _sample_clip(described: dict[str, Any]) -> Tensor:
    """(1, T, C, H, W): a clip that ships, brought to the model's shape."""
    with np.load(SAMPLES / "clips.npz", allow_pickle=False) as samples:
        clip = torch.from_numpy(samples["clips"][:1]).float() / 255
    times = torch.arange(described["in_frames"]) % clip.shape[1]
    frames = nn.functional.interpolate(clip[0, times], (described["height"], described["width"]), mode="area")
    return frames.expand(-1, described["channels"], -1, -1).unsqueeze(0).contiguous()


def _store_in_half(proto: Any) -> None:
    """Store what half precision holds without loss in it, each with a cast to single precision before its use."""
    import onnx
    from onnx import numpy_helper

    casts = []
    for tensor in proto.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if values.size < 64 or not np.array_equal(half.astype(np.float32), values):
            continue
        name, stored = tensor.name, f"{tensor.name}.half"
        tensor.CopyFrom(numpy_helper.from_array(half, stored))
        casts.append(onnx.helper.make_node("Cast", [stored], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    # A type of what is now computed would have to be right; it is inferred.
    del proto.graph.value_info[:]


def _forget_source(proto: Any) -> None:
    """Take away where in whose files each node came from."""
    for part in (proto.graph, *proto.graph.node, *proto.graph.input, *proto.graph.output):
        part.doc_string = ""
        del part.metadata_props[:]


@torch.no_grad()
def _difference(model: nn.Module, content: bytes, clip: Tensor) -> float:
    """Largest difference of the file's forecast from torch's, on a clip of (B, T, C, H, W)."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (made,) = session.run(None, {"clip": clip.numpy()})
    return float((torch.from_numpy(made) - model(clip)).abs().max())
