"""Models as the page takes them: ONNX files that ``plasm.export`` has checked. Needs the extra ``plasm-video[onnx]``.

Weights that half precision holds without loss are stored in it and computed with in single precision: such a file is
half the size, and forecasts the same.
"""

import itertools
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from plasm import weights
from plasm.exporting import (
    check_file,
    check_origin,
    export,
    is_exported,
    load_exported,
    read_metadata,
    remember,
    sample_clips,
)

from .models import PageModel


def page_model(source: str, folder: Path, trust: bool = False, taken: Iterable[str] = ()) -> PageModel:
    """Write a model as ONNX into a folder, for the page.

    Args:
        source: Weights, by any name that ``plasm predict --weights`` takes, or an ONNX file of ``plasm export``.
        folder: Where to, as ``models/NAME.onnx``.
        trust: Whether an ONNX file may be of any origin.
        taken: Names of other models of the page. One of the same name gets a number.

    Raises:
        ImportError: If the exporter is not installed.
        ValueError: If the page cannot show what the model forecasts, or the file forecasts something else.
        OSError: If the weights cannot be had, or the file not be written.
        plasm.weights.WeightsNotFoundError: If no such weights are published.
    """
    models = folder / "models"
    models.mkdir(parents=True, exist_ok=True)
    written = folder / "written.onnx"
    about = ""
    if is_exported(source):
        metadata = read_metadata(source)
        if Path(source).suffix != ".onnx":
            raise ValueError(f"{source} runs in torch: the page takes .onnx files")
        _check_shape(source, metadata["in_chans"], metadata["out_chans"])
        shutil.copyfile(source, written)
        if not trust:
            check_origin(written, named=Path(source))
    else:
        from plasm.models import load_model

        model: Any = load_model(None, source)
        _check_shape(source, model.in_chans, model.out_chans)
        about = f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.1f} M parameters."
        metadata = export(model, written, engines=["onnxruntime"]).metadata
        _shrink(written)
    own = (metadata["weights_sha256"], metadata["model"])
    row = next((row for row in weights.entries() if (row.sha256, row.name) == own), None)
    if row:
        about += f" Test MSE {row.metrics['mse']:.1f}, SSIM {row.metrics['ssim']:.3f}, after {row.clips:,} clips."
    path = Path(source).absolute()
    named = path.stem if path.suffix in (".onnx", ".safetensors") else path.name
    name = row.name if row else re.sub(r"[^\w.-]", "_", named)
    name = _free_name(name, {*taken, *(entry.name for entry in weights.entries() if entry != row)})
    file = models / f"{name}.onnx"
    written.replace(file)
    numbers = {key: int(metadata[key]) for key in ("in_frames", "out_frames", "height", "width")}
    return PageModel(
        name=name,
        file=file.relative_to(folder).as_posix(),
        size=file.stat().st_size,
        sha256=weights.file_sha256(file),
        weights_sha256=metadata["weights_sha256"],
        channels=int(metadata["in_chans"]),
        license=metadata["license"],
        about=about.strip(),
        **numbers,
    )


def _free_name(name: str, taken: set[str]) -> str:
    """A name, or that with a number, that is none of these, nor the same file where case does not count."""
    lower = {each.lower() for each in taken}
    numbered = (f"{name}-{number}" for number in itertools.count(2))
    return next(each for each in itertools.chain([name], numbered) if each.lower() not in lower)


def _check_shape(source: str, in_chans: int | str, out_chans: int | str) -> None:
    if int(in_chans) not in (1, 3) or int(out_chans) != int(in_chans):
        raise ValueError(
            f"the page shows gray or coloured frames, of 1 or 3 channels; the model of {source} takes {in_chans} and "
            f"forecasts {out_chans}"
        )


def _shrink(file: Path) -> None:
    """Store in half precision what it holds without loss, and leave out where in whose files each node came from."""
    import onnx
    from onnx import numpy_helper

    proto = onnx.load(file)
    for part in (proto.graph, *proto.graph.node, *proto.graph.input, *proto.graph.output):
        part.doc_string = ""
        del part.metadata_props[:]
    casts = []
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type != onnx.TensorProto.FLOAT or not _fits_half(values):
            continue
        name, stored = tensor.name, f"{tensor.name}.half"
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), stored))
        casts.append(onnx.helper.make_node("Cast", [stored], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    whole = load_exported(file, trust=True)
    assert whole.size is not None
    clips = sample_clips(whole, whole.size)
    onnx.save(proto, file)
    check_file(file, whole, [clips[:1], clips], ["onnxruntime"], "weights stored in half precision forecast otherwise")
    # Of the export, which these bytes are not any more.
    remember(file)


def _fits_half(values: np.ndarray) -> bool:
    with np.errstate(over="ignore"):
        return values.size >= 64 and bool(np.array_equal(values.astype(np.float16).astype(np.float32), values))
