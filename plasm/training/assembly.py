"""A run from its configuration to its end: model, weights to begin with, data sets and trainer are put together."""

import inspect
import logging
import shutil
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from plasm.config import read_config
from plasm.data import StreamClips, create_dataset, first_clip, pixel_mask
from plasm.devices import choose_device, clear_failures, has_bf16
from plasm.distributed import ProcessGroup, init_process_group
from plasm.files import import_named
from plasm.models import (
    MaskedAutoencoder,
    ModelInterface,
    check_buildable,
    create_model,
    create_task,
    initial_arguments,
    is_plasm_model,
    load_initial_weights,
    load_model,
    recipe,
)
from plasm.runs import (
    PretrainConfig,
    RunConfig,
    RunFolder,
    TrainConfig,
    freezes_encoder,
    history_of,
    lock_folder,
    read_earlier,
)
from plasm.tasks import Pretraining, Task, frame_counts

from . import outlook
from .trainer import Trainer, check_parts

_LOG = logging.getLogger(__name__)


def run(
    config: PretrainConfig | TrainConfig,
    *,
    resume: bool = False,
    fast_dev_run: bool = False,
    allow_changed_data: bool = False,
) -> None:
    """Train a model from scratch or from weights, and leave weights, log and pictures in ``config.out``.

    Under torchrun every process calls it, with the same arguments.

    Args:
        config: Of the run.
        resume: Go on from the last checkpoint in ``config.out``, if there is one.
        fast_dev_run: Go through every stage with a few clips, in a folder beside ``config.out`` that is deleted.
        allow_changed_data: Go on, with a warning, where the files are not those that the run has seen.

    Raises:
        ValueError: If the configuration does not fit the model, the data, or the run that is to be resumed.
        FileExistsError: If ``config.out`` holds a run already, or another process trains in it.
        OSError: If ``config.out`` cannot be written.
        FloatingPointError: If the loss is not finite any more.
        RunInterruptedError: If SIGTERM or SIGINT came; the state was saved.
        LostProcessError: If another process of the run has gone.
        MemoryError: If memory ran out.
        ChildProcessError: If a process that loads clips was killed.
    """
    with clear_failures(
        f"a larger --accumulate, or a smaller --batch-size in another --out, takes less. What {config.out} holds "
        "stays: --resume goes on from its last checkpoint"
    ):
        if fast_dev_run:
            _try_every_stage(config, resume)
            return
        with init_process_group(choose_device(config.device)) as group, _lock(Path(config.out), group):
            trainer = prepare(config, group, resume, allow_changed_data, locked=True)
            if group.is_first:
                print("\n".join(outlook.describe(trainer)), flush=True)
                for warning in outlook.warnings(trainer):
                    _LOG.warning("%s", warning)
            trainer.fit()


def _lock(out: Path, group: ProcessGroup) -> AbstractContextManager[None]:
    """Of the processes that train together, the first one keeps others from the folder that it writes."""
    return lock_folder(out) if group.is_first else nullcontext()


def _try_every_stage(config: PretrainConfig | TrainConfig, resume: bool) -> None:
    """One step an epoch, two epochs, the second after a stop; then the weights are loaded again."""
    out = Path(config.out)
    folder = out.with_name(f".{out.name}.fast_dev_run")
    with init_process_group(choose_device(config.device)) as group, _lock(out, group):
        # Of the batch that is asked for: the one that is tried always divides.
        check_parts(config, group)
        # A few clips, but enough for each process and part.
        whole = group.size * config.accumulate
        clips = min(config.batch_size, whole * max(1, 4 // whole))
        small = replace(
            config, out=str(folder), epochs=2, clips_per_epoch=clips, batch_size=clips, val_clips=2, eval_every=1
        )
        try:
            if group.is_first:
                RunFolder(out).check(config, resume)
                shutil.rmtree(folder, ignore_errors=True)
            prepare(small, group, resume=False).fit(epochs=1)
            group.barrier()
            prepare(small, group, resume=True).fit()
            if isinstance(config, TrainConfig) and group.is_first:
                load_model(config.model, str(folder))
        finally:
            if group.is_first:
                shutil.rmtree(folder, ignore_errors=True)
    if group.is_first:
        print("every stage works: steps, validation, checkpoint, resuming, weights, report")


def prepare(
    config: PretrainConfig | TrainConfig,
    group: ProcessGroup,
    resume: bool,
    allow_changed_data: bool = False,
    locked: bool = False,
) -> Trainer:
    """Make model and data sets, and check all that can be checked before anything is written.

    Arguments are those of ``run`` and of ``Trainer.start``.
    """
    module, _, architecture = config.model.rpartition(":")
    if module:
        import_named(module)
    _check_constructor(config)
    folder = RunFolder(Path(config.out))
    if config.bf16 is None:
        config = replace(config, bf16=has_bf16(group.device))
    initial = _initial_args(config, folder, resume)
    config = replace(config, model_args={**initial, **config.model_args})
    if isinstance(config, TrainConfig):
        # Those of the recipe, too, where the configuration was made without it: a run notes all of its hyperparameters.
        defaults = recipe(architecture, config.command).get("task_args", {})
        config = replace(config, task_args={**defaults, **config.task_args})
        if "rollout" in config.task_args:
            # The clips are made as long as it needs.
            raise ValueError("rollout is an option of its own (--rollout), not one of task_args")
    if group.is_first:
        folder.check(config, resume)
    check_parts(config, group)
    torch.manual_seed(config.seed)
    if initial:
        check_buildable(config.model, config.model_args, f"what {config.model} begins with")
    model = create_model(config.model, **config.model_args)
    history: list[dict[str, Any]] = []
    if isinstance(config, TrainConfig):
        history = _begin(model, config, folder, resume)
        freeze_encoder(model, freezes_encoder(config.freeze_encoder, history))
    task: Task
    if isinstance(config, TrainConfig):
        rollout = {"rollout": config.rollout} if config.rollout > 1 else {}
        task = create_task(architecture, model, **rollout, **config.task_args)
    else:
        task = create_pretraining(model, config)
    train_set, val_set = _create_datasets(config, model)
    _check_weights(task, train_set)
    trainer = Trainer(task, train_set, val_set, config, model=model, group=group)
    trainer.start(history, resume, allow_changed_data, locked)
    return trainer


def _check_constructor(config: RunConfig) -> None:
    """Refuse the name of weights as a model's: it would be trained from random ones, and saved under their name."""
    module, colon, name = config.model.rpartition(":")
    constructor, _, tag = name.partition(".")
    if not (tag and timm.is_model(name)):
        return
    given = f"{module}{colon}{constructor}"
    if isinstance(config, PretrainConfig):
        raise ValueError(f"--model is a constructor; phase 1 begins without weights, such as {name}: --model {given}")
    if is_plasm_model(name):
        raise ValueError(
            f"--model is a constructor; to begin with the weights {name} give --model {given} --init {name}"
        )
    raise ValueError(
        f"--model is a constructor, and {tag} a tag of weights: give --model {given}; --init begins with a run, a "
        "folder of weights, or a safetensors file"
    )


def _initial_args(config: RunConfig, folder: RunFolder, resume: bool) -> dict[str, Any]:
    """The arguments of the weights that a run begins with. One that goes on has noted them: the weights may be gone."""
    if not isinstance(config, TrainConfig) or config.init is None:
        return {}
    noted = folder.path / "config.toml"
    if resume and noted.is_file():
        return dict(read_config(TrainConfig, noted).get("model_args", {}))
    return initial_arguments(config.model, config.init)


def create_pretraining(model: nn.Module, config: PretrainConfig) -> Pretraining:
    """The task of phase 1, of the encoder and the decoder of a model.

    Raises:
        ValueError: If the model has no ``encoder`` and ``decoder`` to pretrain, or a ratio is outside [0, 1].
    """
    found = ModelInterface.of(model)
    if found.encoder is None or found.decoder is None or not hasattr(found.encoder, "num_features"):
        raise ValueError(
            f"phase 1 trains model.encoder, called with (frames, visible) and with num_features, and "
            f"model.decoder; {type(model).__name__} has not all of these"
        )

    def draw(index: Tensor, shape: tuple[int, int, int], ratio: float, epoch: int | None) -> Tensor:
        # Of validation, for any run the same.
        counters = {"seed": 0, "epoch": 0} if epoch is None else {"seed": config.seed, "epoch": epoch}
        return pixel_mask(index, *shape, ratio, config.mask_patch, **counters)

    attn_mask_ratio = config.attn_mask_ratio if config.spatial_masking else None
    autoencoder = MaskedAutoencoder(found.encoder, found.decoder, config.mask_ratio, attn_mask_ratio, config.mask_patch)
    in_frames, _ = frame_counts(model)
    return Pretraining(autoencoder, in_frames, draw, config.mask_ratio, config.mask_ratio_end, config.epochs)


def freeze_encoder(model: nn.Module, frozen: bool) -> None:
    """Keep the encoder of a model as it is, as the paper does after phase 1, or train it.

    Raises:
        ValueError: If the encoder is to be frozen, and the model has no ``freeze_encoder``.
    """
    if freeze := ModelInterface.of(model).freeze_encoder:
        freeze(frozen)
    elif frozen:
        raise ValueError(f"{type(model).__name__} has no freeze_encoder(frozen): --no-freeze-encoder trains all of it")


def _begin(model: nn.Module, config: TrainConfig, folder: RunFolder, resume: bool) -> list[dict[str, Any]]:
    """Load the weights that a run begins with, unless its checkpoint has later ones; their history."""
    if resume and any(folder.checkpoints.glob("step_*")) and (earlier := read_earlier(folder.path)):
        return earlier
    if config.init is None:
        return []
    load_initial_weights(model, config.model, config.init, **config.model_args)
    return history_of(config.init)


def _check_weights(task: Task, train_set: Dataset[Tensor]) -> None:
    """Check that the task takes the weights of the data set's pixels, if it has some."""
    if hasattr(train_set, "get_weighed_batch") and "weight" not in inspect.signature(task.forward).parameters:
        raise ValueError(
            f"pixels of {type(train_set).__name__} have weights (missing ones none), and forward of "
            f"{type(task).__name__} takes no argument `weight`; see docs/own.md"
        )


def _create_datasets(config: RunConfig, model: nn.Module) -> tuple[Dataset[Tensor], Dataset[Tensor]]:
    root, (in_frames, out_frames) = Path(config.data_dir), frame_counts(model)
    rollout = config.rollout if isinstance(config, TrainConfig) else 1
    train_set = create_dataset(
        config.data, root, "train", num_clips=config.clips_per_epoch, num_frames=in_frames + rollout * out_frames,
        seed=config.seed, **config.data_args,
    )  # fmt: skip
    val_set = create_dataset(
        config.data, root, "val", num_clips=config.val_clips, num_frames=in_frames + out_frames, **config.data_args
    )
    if (clips := len(train_set)) < config.batch_size:  # type: ignore[arg-type]
        advice = f"--batch-size {clips}"
        if isinstance(train_set, StreamClips) and (more := outlook.denser(train_set))[1] > clips:
            advice += f", or --data-arg stride={more[0]}, which makes {more[1]:,} clips"
        raise ValueError(
            f"{config.data} has {clips} training clips, fewer than a batch of {config.batch_size}: {advice}"
        )
    channels, wanted = first_clip(train_set).shape[1], ModelInterface.of(model).in_chans
    if wanted not in (None, channels):
        advice = f"an option of the data set (--data-arg) that makes {wanted}"
        taken = inspect.signature(type(model)).parameters
        if "in_chans" in taken or any(each.kind == each.VAR_KEYWORD for each in taken.values()):
            advice = f"--model-arg in_chans={channels}, or {advice}"
        else:
            advice = f"no argument of the model changes that; give {advice}"
        raise ValueError(f"{config.data} has clips of {channels} channel(s), {config.model} takes {wanted}: {advice}")
    return train_set, val_set
