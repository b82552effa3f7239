"""Commands that bring weights to others, and from elsewhere."""

import tempfile
from pathlib import Path

import click
from torch import Tensor, nn

from plasm import weights
from plasm.models import create_model, family_of, openstl
from plasm.runs import export_run

from .options import pairs

__all__ = ["convert", "print_weights", "push"]


def print_weights() -> None:
    """Print every row of the manifest."""
    for row in weights.entries():
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
    if "/" not in repo:
        raise ValueError(f"--repo is OWNER/NAME, got {repo!r}")
    with tempfile.TemporaryDirectory() as name:
        export_run(run, Path(name), repo, license)
        address, revision = weights.push(Path(name), repo, private)
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
def convert(
    old: Path,
    new: Path,
    model: str | None,
    model_arg: tuple[str, ...],
    config: Path | None,
    data: str | None,
    key: str | None,
) -> None:
    """Convert an OLD checkpoint, .pth or .ckpt, to NEW: a .safetensors file, or a folder that timm loads.

    Only tensors are read. For a folder, and whenever --model or --config is given, they must fit the model; those that
    OpenSTL wrote get the model's own names.
    """
    if model is not None and config is not None:
        raise ValueError("--model and --config both say which model it is: give one")
    if config is not None and model_arg:
        raise ValueError("--model-arg goes with --model: --config has the arguments")
    if data is not None and config is None:
        raise ValueError("--data goes with --config: it says what frames the model is for")
    if model is None and config is None and new.suffix != ".safetensors":
        raise ValueError(
            f"{new} would be a folder, for which --model or --config says what the tensors are of; or name a "
            ".safetensors"
        )
    taken, tensors = weights.read_entry(old, key)
    net = None
    if config is not None:
        net = openstl.load(config, tensors, data)
    elif model is not None:
        overlay = {"state_dict": tensors}
        net = create_model(model, pretrained=True, pretrained_cfg_overlay=overlay, **pairs("model_args", model_arg))
        family = family_of(model)
        rename = family.checkpoint_filter_fn if family else None
        _check_unadapted(rename(tensors, net) if rename else tensors, net, old)
    if net is not None:
        tensors = net.state_dict()
    if net is None or new.suffix == ".safetensors":
        new.parent.mkdir(parents=True, exist_ok=True)
        weights.save_tensors(tensors, new)
    else:
        weights.save_pretrained(net, new)
    click.echo(f"{new}: {len(tensors)} tensors{f', of {taken} in {old}' if taken else ''}")


def _check_unadapted(tensors: dict[str, Tensor], net: nn.Module, old: Path) -> None:
    """Refuse tensors that would have to be adapted: what is converted is what was given."""
    own = net.state_dict()
    misfits = [
        f"{name} {tuple(tensor.shape)} for {tuple(own[name].shape)}"
        for name, tensor in tensors.items()
        if name in own and own[name].shape != tensor.shape
    ]
    if misfits:
        raise ValueError(
            f"{old} does not fit the model, {len(misfits)} tensor(s) are of another shape: {', '.join(misfits)}; "
            "convert it with the arguments it was made with; models of other frames can be made of the result"
        )
