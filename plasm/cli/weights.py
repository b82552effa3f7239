"""Commands that bring weights to others, and from elsewhere."""

import fnmatch
from pathlib import Path
from typing import Any

import click

from plasm import weights
from plasm.models import convert_checkpoint
from plasm.runs import push_run

from .options import pairs


def print_weights(pattern: str = "*") -> None:
    """Print the rows of the manifest whose model, or with a dot in the pattern whose MODEL.TAG, matches it.

    Raises:
        ValueError: If none does.
    """
    rows = [row for row in weights.entries() if fnmatch.fnmatch(row.name if "." in pattern else row.model, pattern)]
    if not rows:
        raise ValueError(f"no published weights are of {pattern!r}; `plasm list --weights` names all")
    for row in rows:
        titles = weights.describe(row)
        click.echo(titles.pop("model and tag"))
        for title, text in titles.items():
            click.echo(f"  {title:<18}{text}")


@click.command()
@click.argument("run", type=Path)
@click.option("--repo", required=True, metavar="OWNER/NAME", help="Model repository on the Hub, made if need be.")
@click.option("--license", default="apache-2.0", help="Of the weights, as the Hub writes it.", show_default=True)
@click.option("--private/--public", default=False, help="Who sees a repository that is made.", show_default=True)
def push(run: Path, repo: str, license: str, private: bool) -> None:
    """Put the weights of a RUN of phase 2 on the Hugging Face Hub, with a model card made from the run.

    Metrics are on the card if `plasm evaluate --weights RUN` measured these very weights. Log in before: hf auth login.
    """
    address, revision = push_run(run, repo, license, private)
    click.echo(f'{address} at {revision}: timm.create_model("hf-hub:{repo}", pretrained=True)')


@click.command()
@click.argument("old", type=Path)
@click.argument("new", type=Path)
@click.option("--model", help="Constructor. A folder needs it, or --config.")
@click.option("--model-arg", metavar="NAME=VALUE", multiple=True, help="Argument of the constructor. May be repeated.")
@click.option(
    "--config", type=Path, metavar="FILE", help="OpenSTL's configuration, .py or model_param.json, in place of --model."
)
@click.option("--data", metavar="NAME", help="OpenSTL's data set, whose frames a --config without in_shape is for.")
@click.option("--key", metavar="NAME", help="Entry of OLD to take. By default timm's choice: an average first.")
def convert(old: Path, new: Path, model_arg: tuple[str, ...], **arguments: Any) -> None:
    """Convert an OLD checkpoint, .pth or .ckpt, to NEW: a .safetensors file, or a folder that timm loads.

    Only tensors are read. For a folder, and whenever --model or --config is given, they must fit the model; those that
    OpenSTL wrote get the model's own names.
    """
    done = convert_checkpoint(old, new, model_args=pairs("model_args", model_arg), **arguments)
    click.echo(f"{new}: {done.tensors} tensors{f', of {done.entry} in {old}' if done.entry else ''}")
