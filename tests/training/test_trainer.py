import dataclasses
import json
import math
import re
import resource
import shutil
import signal
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import timm
import together
import torch
from safetensors.torch import load_file
from torch import nn

from plasm import training, weights
from plasm.data import SAMPLES, create_dataset
from plasm.distributed import SINGLE_PROCESS, ProcessGroup
from plasm.models import initial_arguments, load_model
from plasm.tasks import Prediction
from plasm.training import PretrainConfig, TrainConfig, Trainer, model_defaults
from plasm.training.assembly import prepare
from plasm.training.optim import create_optimizer, create_scheduler
from plasm.weights import manifest

MODEL: dict[str, Any] = {"encoder_dim": 8, "translator_dim": 16, "translator_depth": 1}


def arguments(root: Path, out: Path, **changes: Any) -> dict[str, Any]:
    return {
        "model": "plasm_mmnist_tiny", "data": "mmnist", "data_dir": str(root), "out": str(out), "epochs": 2,
        "clips_per_epoch": 16, "batch_size": 4, "val_clips": 4, "device": "cpu", "model_args": MODEL, **changes,
    }  # fmt: skip


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "pretrained"
    training.run(PretrainConfig(**arguments(SAMPLES, out, epochs=4, clips_per_epoch=40)))
    return out


def log_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_a_run_leaves_weights_config_log_curves_and_samples(pretrained: Path) -> None:
    files = sorted(str(path.relative_to(pretrained)) for path in pretrained.rglob("*") if path.is_file())
    states = [f"checkpoints/step_{step:08d}/state.{end}" for step in (30, 40) for end in ("json", "safetensors")]
    samples = [f"samples/epoch_{epoch:04d}.png" for epoch in (1, 2, 3, 4)]
    board = [file for file in files if file.startswith("tensorboard/")]
    others = ["config.json", "config.toml", "curves.png", "log.jsonl", "model.safetensors", "report.md"]
    assert files == sorted([*others, *states, *samples, *board])
    log = log_of(pretrained)
    assert [row["epoch"] for row in log] == [1, 2, 3, 4]
    assert [row["clips"] for row in log] == [40, 80, 120, 160]
    assert set(log[0]) == {"epoch", "clips", "loss", "lr", "clips_per_second", "val_mse"}


def test_the_reconstruction_error_falls(pretrained: Path) -> None:
    log = log_of(pretrained)
    assert log[-1]["loss"] < 0.8 * log[0]["loss"]
    assert log[-1]["val_mse"] < log[0]["val_mse"]


def test_phase_2_takes_encoder_and_decoder_and_freezes_the_encoder(
    pretrained: Path, sample_root: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    training.run(TrainConfig(**arguments(sample_root, out, init=str(pretrained))))
    before, after = load_file(pretrained / "model.safetensors"), load_file(out / "model.safetensors")
    encoder = [name for name in after if name.startswith("encoder.")]
    assert encoder
    assert all(torch.equal(before[name], after[name]) for name in encoder)
    decoder = [name for name in after if name.startswith("decoder.")]
    assert any(not torch.equal(before[name], after[name]) for name in decoder)
    # It started from the run's decoder, and its few small steps have not led far away.
    random = timm.create_model("plasm_mmnist_tiny", **MODEL).state_dict()
    name = "decoder.blocks.0.conv.weight"
    assert (after[name] - before[name]).norm() < 0.5 * (random[name] - before[name]).norm()
    assert not any(name.startswith("spatial_masking") for name in after)


@pytest.mark.parametrize(
    ("init", "freeze", "frozen"), [(False, None, False), (True, False, False), (True, None, True), (False, True, True)]
)
def test_who_trains(
    pretrained: Path, sample_root: Path, tmp_path: Path, init: bool, freeze: bool | None, frozen: bool
) -> None:
    config = TrainConfig(
        **arguments(sample_root, tmp_path / "run", init=str(pretrained) if init else None, freeze_encoder=freeze)
    )
    trainer = prepare(config, SINGLE_PROCESS, resume=False)
    model: Any = trainer.task.model
    optimised = {id(p) for p in trainer.state.parameters}
    assert all((id(p) in optimised) != frozen for p in model.encoder.parameters())
    assert all(p.requires_grad != frozen for p in model.encoder.parameters())
    assert all(p.requires_grad for p in [*model.decoder.parameters(), *model.translator.parameters()])


def test_a_seed_gives_one_result(sample_root: Path, tmp_path: Path) -> None:
    runs = []
    for number, seed in enumerate((0, 0, 1)):
        out = tmp_path / str(number)
        training.run(TrainConfig(**arguments(sample_root, out, seed=seed, epochs=1)))
        runs.append(load_file(out / "model.safetensors"))
    name = "translator.in_proj.weight"
    assert torch.equal(runs[0][name], runs[1][name])
    assert not torch.equal(runs[0][name], runs[2][name])


def test_a_run_loads_by_name_and_remembers_its_arguments(sample_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    training.run(TrainConfig(**arguments(sample_root, out, model_args={**MODEL, "attention": "none"})))
    model = load_model(None, str(out))
    assert model.translator.pla[0].attention == "none"
    assert torch.equal(
        timm.create_model(f"local-dir:{out}", pretrained=True).state_dict()["decoder.readout.weight"],
        model.state_dict()["decoder.readout.weight"],
    )
    with pytest.raises(ValueError, match="holds a plasm_mmnist_tiny, not a plasm_kth"):
        load_model("plasm_kth", str(out))
    with pytest.raises(ValueError, match="name the model"):
        load_model(None, str(out / "model.safetensors"))
    with pytest.raises(ValueError, match=r"does not fit the model: .*missing: translator.*another shape: encoder"):
        load_model("plasm_kth", str(out / "model.safetensors"))
    with pytest.raises(FileNotFoundError, match="not there"):
        load_model("plasm_kth", str(out / "none.safetensors"))


def test_errors_come_before_hours_are_spent(pretrained: Path, sample_root: Path, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="holds a run already"):
        training.run(PretrainConfig(**arguments(sample_root, pretrained)))
    with pytest.raises(ValueError, match="an epoch holds a batch"):
        training.run(TrainConfig(**arguments(sample_root, tmp_path / "a", batch_size=17)))
    with pytest.raises(FileNotFoundError, match="not a run"):
        training.run(TrainConfig(**arguments(sample_root, tmp_path / "b", init=str(tmp_path))))
    with pytest.raises(ValueError, match=r"the encoder of .* does not fit"):
        training.run(
            TrainConfig(
                **arguments(sample_root, tmp_path / "c", init=str(pretrained), model_args={**MODEL, "encoder_dim": 4})
            )
        )
    with pytest.raises(ValueError, match="phase 1"):
        load_model(None, str(pretrained))
    with pytest.raises(ValueError, match=r"clips of 1 channel\(s\), plasm_mmnist_tiny takes 3"):
        training.run(TrainConfig(**arguments(sample_root, tmp_path / "d", model_args={**MODEL, "in_chans": 3})))
    with pytest.raises(ValueError, match="at least one pixel"):
        training.run(PretrainConfig(**arguments(sample_root, tmp_path / "e", mask_patch=0)))
    with pytest.raises(ValueError, match="no device 'nope'"):
        training.run(TrainConfig(**arguments(sample_root, tmp_path / "f", device="nope")))
    assert not any((tmp_path / name).exists() for name in "abcdef")


def test_a_loss_that_is_not_finite_stops_the_run(sample_root: Path, tmp_path: Path) -> None:
    config = TrainConfig(**arguments(sample_root, tmp_path / "run", lr=1e30, schedule="constant", clip_grad=0.0))
    with pytest.raises(FloatingPointError, match="at step 2 of epoch 1, at a learning rate of 1e"):
        training.run(config)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["bad_batch.safetensors", "config.toml"]
    bad = load_file(tmp_path / "run" / "bad_batch.safetensors")
    train_set = create_dataset("mmnist", sample_root, "train", num_clips=16)
    assert torch.equal(bad["clips"], torch.stack([train_set[int(number)] for number in bad["index"]]))


def test_weights_that_are_not_finite_are_never_saved(sample_root: Path, tmp_path: Path) -> None:
    """The last step of an epoch can ruin weights whose loss was fine."""
    config = TrainConfig(
        **arguments(sample_root, tmp_path / "run", batch_size=16, lr=1e300, schedule="constant", epochs=1)
    )
    with pytest.raises(FloatingPointError):
        training.run(config)
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_damaged_runs_are_errors_that_name_the_file(sample_root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    training.run(TrainConfig(**arguments(sample_root, run, epochs=1)))
    content, config = (run / "model.safetensors").read_bytes(), (run / "config.json").read_text()
    (run / "model.safetensors").write_bytes(content[:-9])
    with pytest.raises(OSError, match=r"model\.safetensors is not a whole"):
        load_model(None, str(run))
    (run / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        load_model(None, str(run))
    (run / "model.safetensors").write_bytes(content)
    (run / "config.json").write_text(config.replace('"translator_dim": 16', '"translator_dim": 24'))
    with pytest.raises(ValueError, match="does not fit"):
        load_model(None, str(run))
    for damaged, message in ((config[:50], r"config\.json is damaged"), ("{}", r"config\.json is no configuration")):
        (run / "config.json").write_text(damaged)
        with pytest.raises(ValueError, match=message):
            load_model(None, str(run))


@pytest.mark.parametrize("schedule", ["onecycle", "cosine", "constant"])
def test_schedules(schedule: str) -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([parameter], lr=0.1, betas=(0.9, 0.999))
    config = TrainConfig(model="", data="", data_dir="", out="", lr=0.1, schedule=schedule)  # type: ignore[arg-type]
    scheduler = create_scheduler(optimizer, config, 100)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        assert optimizer.param_groups[0]["betas"] == (0.9, 0.999)
        optimizer.step()
        scheduler.step()
    assert max(rates) == pytest.approx(0.1, rel=1e-3)
    if schedule == "onecycle":
        assert 25 < rates.index(max(rates)) < 35
        assert rates[-1] < 1e-4 > rates[0] / 1000
    if schedule == "cosine":
        assert rates == sorted(rates, reverse=True)
        assert rates[50] == pytest.approx(0.05, rel=0.05)
    if schedule == "constant":
        assert set(rates) == {0.1}


@pytest.mark.slow
def test_no_score_is_a_constant_after_training_at_the_papers_rate(tmp_path: Path) -> None:
    """The authors' score, trained so, gives three of these four heads 0 or 1 for every clip."""
    args = {**MODEL, "translator_depth": 2}
    told = arguments(SAMPLES, tmp_path / "run", lr=0.01, epochs=4, clips_per_epoch=40, model_args=args)
    training.run(TrainConfig(**told, schedule="constant"))
    model: Any = load_model(None, str(tmp_path / "run")).eval()
    clips: Any = create_dataset("mmnist", SAMPLES, "test", num_frames=20)
    found: list[torch.Tensor] = []
    for block in model.translator.pla:
        block.register_forward_pre_hook(lambda block, inputs: found.append(block.scores(*inputs)))
    model.predict(torch.stack([clips[index][:10] for index in range(8)]))
    assert len(found) == 2
    for scores in found:
        assert (scores.std(0) > 1e-4).all(), scores


def test_wsd_warms_up_stays_and_decays_to_zero() -> None:
    config = TrainConfig(
        model="", data="", data_dir="", out="", lr=0.1, schedule="wsd", epochs=10, warmup_steps=4, decay_epochs=2
    )
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = create_scheduler(optimizer, config, 100)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    expected = [0.02, 0.04, 0.06, 0.08, *[0.1] * 76, *(0.1 * k / 20 for k in range(20, 0, -1))]
    assert rates == pytest.approx(expected)


def rates(num_steps: int, **told: Any) -> list[float]:
    config = TrainConfig(model="", data="", data_dir="", out="", **{"lr": 1.0, **told})
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = create_scheduler(optimizer, config, num_steps)
    found = []
    for _ in range(num_steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_warm_up_of_whole_epochs() -> None:
    cosine = rates(100, schedule="cosine", epochs=10, warmup_epochs=2)
    assert cosine[:20] == pytest.approx([(step + 1) / 21 for step in range(20)])
    assert cosine[20:] == pytest.approx([0.5 + 0.5 * math.cos(math.pi * step / 80) for step in range(80)])
    assert rates(100, schedule="cosine", epochs=10) == pytest.approx(
        [0.5 + 0.5 * math.cos(math.pi * step / 100) for step in range(100)]
    )
    for epochs, peak in ((0, 29), (1, 9), (4, 39)):
        found = rates(100, schedule="onecycle", epochs=10, warmup_epochs=epochs)
        assert found.index(max(found)) == peak
        assert max(found) == pytest.approx(1)
    # A trial of fewer epochs than the recipe's warm-up rises for half of them; a run of one step has a rate, too.
    short = rates(10, schedule="cosine", epochs=1, warmup_epochs=5)
    assert short[5] == max(short) == 1
    for schedule in ("cosine", "onecycle", "exponential"):
        assert rates(2, schedule=schedule, epochs=2, warmup_epochs=5)[0] > 0


def test_exponential_is_stams() -> None:
    found = rates(200_000 // 50, schedule="exponential", epochs=4)
    assert found[:1000] == [1.0] * 1000
    for times in range(1, 75):
        assert found[1000 + 40 * times] == pytest.approx(0.9**times)


def test_an_optimizer_timm_has_not_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'adom'; do you mean adam, .*timm\.optim\.list_optimizers\(\) names all"):
        training.run(TrainConfig(**arguments(SAMPLES, tmp_path / "run", optimizer="adom")))


def test_weights_decay_but_biases_and_norms_do_not() -> None:
    config = TrainConfig(model="", data="", data_dir="", out="", lr=0.1, optimizer="adamw", weight_decay=0.5)
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3), torch.nn.GroupNorm(1, 4), torch.nn.Conv2d(4, 1, 1))
    net[2].requires_grad_(False)
    groups = {group["weight_decay"]: group["params"] for group in create_optimizer(net, config).param_groups}
    assert {id(p) for p in groups[0.5]} == {id(net[0].weight)}
    assert {id(p) for p in groups[0.0]} == {id(net[0].bias), id(net[1].weight), id(net[1].bias)}


def test_defaults_are_the_papers() -> None:
    fields = {field.name: field.default for field in dataclasses.fields(PretrainConfig)}
    assert (fields["lr"], fields["batch_size"], fields["epochs"], fields["attn_mask_ratio"]) == (0.01, 16, 50, 0.1)
    ratios = {"mmnist": 0.96, "taxibj": 0.97, "human36m": 0.95, "caltech": 0.95, "kth": 0.90}
    epochs = {"mmnist": 2000, "taxibj": 50, "human36m": 50, "caltech": 50, "kth": 100}
    for name in ratios:
        assert model_defaults(PretrainConfig, f"plasm_{name}")["mask_ratio"] == ratios[name]
        second = model_defaults(TrainConfig, f"plasm_{name}")
        assert second["epochs"] == epochs[name]
        assert second["lr"] == (0.01 if name == "mmnist" else 0.001)
        assert second.get("schedule", "onecycle") == ("cosine" if name == "taxibj" else "onecycle")


def test_the_gradient_is_clipped_to_its_norm(tmp_path: Path) -> None:
    norms = []
    for clip_grad in (0.0, 1e-3):
        config = TrainConfig(**arguments(SAMPLES, tmp_path / f"{clip_grad}", clip_grad=clip_grad, epochs=1))
        trainer = prepare(config, SINGLE_PROCESS, resume=False)
        trainer.task.train()
        trainer._train_step([next(trainer._batches())])
        norms.append(torch.nn.utils.get_total_norm([p.grad for p in trainer.state.parameters if p.grad is not None]))
    assert norms[0] > 2e-3
    assert norms[1] == pytest.approx(1e-3, rel=1e-3)


def test_accumulated_parts_have_the_gradient_of_the_whole_batch(sample_root: Path, tmp_path: Path) -> None:
    whole = together.gradients(SINGLE_PROCESS, str(tmp_path / "whole"), str(sample_root))
    parts = together.gradients(SINGLE_PROCESS, str(tmp_path / "parts"), str(sample_root), accumulate=4)
    assert whole.keys() == parts.keys()
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.slow
def test_compiled_steps_are_those_of_the_model(
    sample_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the code that inductor would write, but with its graphs, forward and backward."""
    compile_model, steps = torch.nn.Module.compile, {"epochs": 1, "clips_per_epoch": 4, "batch_size": 2, "val_clips": 1}
    monkeypatch.setattr(torch.nn.Module, "compile", lambda model: compile_model(model, backend="aot_eager"))
    runs = {}
    for name in ("eager", "compiled"):
        told = arguments(sample_root, tmp_path / name, compile=name == "compiled", bf16=False, **steps)
        training.run(TrainConfig(**told))
        runs[name] = log_of(tmp_path / name)[0]
    for key in ("loss", "val_mse"):
        assert runs["compiled"][key] == pytest.approx(runs["eager"][key], rel=1e-4)


def test_the_average_of_the_weights_is_what_is_saved(sample_root: Path, tmp_path: Path) -> None:
    """Against the definition: average = decay * average + (1 - decay) * weights, after each step."""
    decay = 0.75
    settings = arguments(sample_root, tmp_path / "run", ema=decay, epochs=1, batch_size=4)
    trainer = prepare(TrainConfig(**settings), SINGLE_PROCESS, resume=False)
    name = "translator.in_proj.weight"
    seen = [trainer.task.model.state_dict()[name].clone()]
    step = trainer._train_step

    def note(batch: Any) -> torch.Tensor:
        loss = step(batch)
        seen.append(trainer.task.model.state_dict()[name].clone())
        return loss

    trainer._train_step = note  # type: ignore[method-assign]
    trainer.fit()
    average = seen[0]
    for weight in seen[1:]:
        average = decay * average + (1 - decay) * weight
    saved = load_file(tmp_path / "run" / "model.safetensors")[name]
    torch.testing.assert_close(saved, average)
    assert not torch.equal(saved, seen[-1])


def test_fast_dev_run_goes_through_every_stage_and_keeps_nothing(
    pretrained: Path, sample_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = TrainConfig(**arguments(sample_root, tmp_path / "run", init=str(pretrained), accumulate=2, ema=0.9))
    training.run(config, fast_dev_run=True)
    training.run(PretrainConfig(**arguments(sample_root, tmp_path / "run")), fast_dev_run=True)
    assert capsys.readouterr().out.count("every stage works") == 2
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="takes 3"):
        training.run(
            TrainConfig(**arguments(sample_root, tmp_path / "run", model_args={**MODEL, "in_chans": 3})),
            fast_dev_run=True,
        )
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_an_error_before_the_first_step(
    sample_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="is a file; --out is a folder"):
        training.run(TrainConfig(**arguments(sample_root, tmp_path / "file")))
    # Root may write anywhere, but not below a file, and not into /proc.
    with pytest.raises(OSError, match="/proc/plasm cannot be written"):
        training.run(TrainConfig(**arguments(sample_root, Path("/proc/plasm"))))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2**30, 2**30, 1000))  # type: ignore[attr-defined]
    with pytest.raises(OSError, match="run cannot be written: its disk has 0 MiB free; the run needs about"):
        training.run(TrainConfig(**arguments(sample_root, tmp_path / "run")))
    assert not (tmp_path / "run").exists()


def test_a_disk_that_fills_up_leaves_the_checkpoint_before(sample_root: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: the write fails half-way, as on a full one."""
    config = TrainConfig(**arguments(sample_root, tmp_path / "run"))
    trainer = prepare(config, SINGLE_PROCESS, resume=False)
    trainer.fit(epochs=1)
    (good,) = trainer.folder.checkpoints.iterdir()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    trainer.state.epoch, trainer.state.step = 1, 2
    try:
        with pytest.raises(OSError, match=r"state\.safetensors cannot be written"):
            trainer.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(trainer.folder.checkpoints.iterdir()) == [good]
    training.run(config, resume=True)
    assert len(log_of(tmp_path / "run")) == 2


@pytest.mark.parametrize(("asked", "has", "used"), [(None, True, True), (None, False, False), (True, False, True)])
def test_bf16_is_the_default_where_the_device_has_it(
    asked: bool | None, has: bool, used: bool, sample_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plasm.training.assembly.has_bf16", lambda device: has)
    seen: list[bool] = []
    config = TrainConfig(**arguments(sample_root, tmp_path, bf16=asked, epochs=1, clips_per_epoch=4, val_clips=1))
    trainer = prepare(config, SINGLE_PROCESS, resume=False)
    trainer.task.model.register_forward_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    trainer.fit()
    assert seen == [used, used]  # a step, and validation


def test_batches_must_divide_among_processes(
    sample_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainConfig(**arguments(sample_root, tmp_path / "run", accumulate=2))
    three = ProcessGroup(0, 3, torch.device("cpu"))
    with pytest.raises(ValueError, match="batch_size 4 is not a multiple of 3 processes x 2 parts"):
        prepare(config, three, resume=False)
    # Of a notebook, too, whose parts would be of unequal weight; and of the batch that a try stands for.
    model, clips = nn.Conv2d(1, 1, 1), [torch.zeros(4, 1, 8, 8)] * 4
    model.in_frames = model.out_frames = 2  # type: ignore[assignment]
    with pytest.raises(ValueError, match="batch_size 4 is not a multiple of 3 processes x 2 parts"):
        Trainer(Prediction(model), clips, clips, config, group=three)
    monkeypatch.setattr("plasm.training.assembly.init_process_group", lambda _: nullcontext(three))
    with pytest.raises(ValueError, match="batch_size 4 is not a multiple of 3 processes x 2 parts"):
        training.run(config, fast_dev_run=True)


def test_tensorboard_reads_the_log(pretrained: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(pretrained / "tensorboard"))
    events.Reload()
    log = log_of(pretrained)
    for key in ("loss", "val_mse", "lr"):
        scalars = [(event.step, event.value) for event in events.Scalars(key)]
        assert scalars == [(row["clips"], pytest.approx(row[key])) for row in log]


def test_the_report_tells_the_run(pretrained: Path) -> None:
    text, log = (pretrained / "report.md").read_text(), log_of(pretrained)
    assert "Phase 1: rebuilding masked clips" in text
    assert f"{log[-1]['val_mse']:.2f} at the end" in text
    assert "160 in 4 epochs" in text
    for picture in re.findall(r"\]\((.*?\.png)\)", text):
        assert (pretrained / picture).is_file()
    assert "| `mask_ratio` | `0.96` |" in text


def test_a_saved_configuration_repeats_the_run(sample_root: Path, tmp_path: Path) -> None:
    training.run(TrainConfig(**arguments(sample_root, tmp_path / "one", ema=0.5)))
    again = training.create_config(TrainConfig, {"out": str(tmp_path / "two")}, tmp_path / "one" / "config.toml")
    training.run(again)
    one, two = (tmp_path / name / "model.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_a_run_from_whole_weights_has_their_arguments(tmp_path: Path) -> None:
    """Nobody has to say them again; and a run that goes on does without the weights that it began with."""
    args = {"encoder_dim": 8, "translator_dim": 16, "translator_depth": 1, "score": "softmax", "skip": False}
    source = tmp_path / "weights"
    weights.save_pretrained(timm.create_model("plasm_mmnist_tiny", **args), source)
    told: dict[str, Any] = {
        "model": "plasm_mmnist_tiny", "data": "mmnist", "data_dir": str(SAMPLES), "init": str(source),
        "clips_per_epoch": 2, "batch_size": 2, "val_clips": 1, "device": "cpu", "out": str(tmp_path / "run"),
        "schedule": "wsd",
    }  # fmt: skip
    for epochs in (1, 2):
        training.run(TrainConfig(**told, epochs=epochs), resume=True)
        shutil.rmtree(source, ignore_errors=True)
    config = weights.read_model_config(tmp_path / "run" / "config.json")
    assert args.items() <= config["model_args"].items()


def test_a_run_from_published_weights_has_their_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    row = dataclasses.replace(weights.entry("plasm_mmnist_tiny"), tag="old", model_args={"skip": False})
    monkeypatch.setattr(manifest, "entries", lambda: (row,))
    assert initial_arguments("plasm_mmnist_tiny", "plasm_mmnist_tiny.old") == {"skip": False}
