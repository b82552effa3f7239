"""The command that exports."""

from pathlib import Path
from typing import Any, get_args

import click

from plasm import exporting
from plasm.devices import clear_failures
from plasm.models import load_model


@click.command()
@click.argument("weights", default="plasm_mmnist_tiny")
@click.option("--model", help="Constructor, where WEIGHTS is a bare .safetensors file or a run of your own model.")
@click.option("--format", type=click.Choice(list(exporting.FORMATS)), default="onnx", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="File to write: .onnx, or else .pt2.")
@click.option("--frames", "num_frames", type=int, help="How many frames the graph predicts; as many as the model.")
@click.option("--size", type=int, nargs=2, metavar="H W", help="Height and width; the model's own if not given.")
@click.option("--half", is_flag=True, help="Weights and arithmetic in half precision; input and output stay float32.")
@click.option("--dynamic-size", is_flag=True, help="Take any height and width that the model's strides divide.")
@click.option("--engine", "engines", multiple=True, type=click.Choice(get_args(exporting.Engine)),
              help="Check .onnx in this engine alone; may be repeated.  [default: all that are installed]")  # fmt: skip
@click.option("--license", help="Of the weights; that of published ones is known.")
def export(weights: str, model: str | None, out: Path, engines: tuple[exporting.Engine, ...], **arguments: Any) -> None:
    """Write a model with its WEIGHTS as one file for other runtimes, checked against eager on real clips.

    WEIGHTS is a run, folder, hf-hub:OWNER/NAME, published name or .safetensors file. The batch is always free. Formats:
    onnx; pt2, of torch.export; aoti, compiled by AOTInductor for this kind of machine (it needs a C++ compiler).
    """
    with clear_failures("a smaller --size takes less"):
        done = exporting.export(load_model(model, weights), out, engines=engines or None, **arguments)
    click.echo(
        f"{done.file}: {done.file.stat().st_size / 1e6:.1f} MB, {done.metadata['format']}; largest difference from "
        f"eager {done.difference:.2g}, of an output whose range is {done.range:.3g}, in {done.metadata['checked_in']}"
    )
