"""Faults that the tests must see: each is put into a copy of the package, and its test file has to fail there.

    python tools/mutations.py [NAME ...]

A test that compares code with itself passes whatever the code computes. Each line below changes one number or formula;
the tests named there hold it against its paper's or its source's. Exits with 1 if a fault survives, or if a test fails
without it.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import pytest
import timm  # noqa: F401

ROOT = Path(__file__).parent.parent
COPIED = ("plasm", "tests", "setup.cfg", "pyproject.toml", "docs", "benchmarks")


@dataclass(frozen=True)
class Mutation:
    """A fault.

    Attributes:
        name: What is wrong.
        file: Of the repository.
        right: Text of the file, which stands there once.
        wrong: What is put in its place.
        test: The test file that fails on it.
        only: Tests of that file, as for ``pytest -k``, so that the rest need not run.
    """

    name: str
    file: str
    right: str
    wrong: str
    test: str
    only: str = ""


_SAMPLING, _LOSSES, _TRAINER = "plasm/tasks/sampling.py", "plasm/tasks/losses.py", "plasm/training/trainer.py"
_OF_SAMPLING, _OF_LOSSES, _OF_RECIPES = (
    "tests/tasks/test_sampling.py", "tests/tasks/test_losses.py", "tests/models/test_registration.py",
)  # fmt: skip
_OF_PREDICTION, _OF_RUNS = "tests/tasks/test_prediction.py", "tests/training/test_assembly.py"

MUTATIONS = (
    Mutation(
        "PhyDNet's loss is not summed over frames", _SAMPLING,
        "mean_squared_error(prediction, target) * target.shape[1]", "mean_squared_error(prediction, target)",
        _OF_SAMPLING,
    ),
    Mutation(
        "E3D-LSTM has no absolute error", _SAMPLING,
        '{**super().losses(prediction, target), "l1": absolute_error(prediction, target)}',
        "super().losses(prediction, target)", _OF_SAMPLING,
    ),
    Mutation(
        "teacher forcing ends twice as early", _SAMPLING,
        "1.0 - step / self.forcing_steps", "1.0 - 2 * step / self.forcing_steps", _OF_SAMPLING,
    ),
    Mutation("the gradient is never clipped", _TRAINER, "clip_grad > 0", "clip_grad < 0",
             "tests/training/test_trainer.py", "clipped"),
    Mutation(
        "PredRNN's rate is ten times OpenSTL's", "plasm/models/predrnn.py",
        'lr={"mmnist": 5e-4, "taxibj": 1e-4', 'lr={"mmnist": 5e-3, "taxibj": 1e-4', _OF_RECIPES, "recipes",
    ),
    Mutation("the speed of evaluate counts the warm-up", "plasm/evaluation/forecasts.py",
             "self._times[1:] or self._times", "self._times", "tests/evaluation/test_forecasts.py", "speed"),
    Mutation(
        "a training step is as much work as a forward pass", "plasm/benchmark/measuring.py",
        '(3 if case.mode == "training" else 1)', "1", "tests/benchmark/test_measuring.py", "ratio_to_the_peak",
    ),
    Mutation("scheduled sampling ends twice as late", _SAMPLING,
             "1.0 - (step + 1) / stop", "1.0 - (step + 1) / (2 * stop)", _OF_SAMPLING),
    Mutation("reverse sampling has no alpha", _SAMPLING,
             "(stop / 10 if alpha is None else alpha)", "(stop / 10)", _OF_SAMPLING),
    Mutation("reverse sampling begins with every frame", _SAMPLING,
             "before = 0.5 if since < 0", "before = 1.0 if since < 0", _OF_SAMPLING),
    Mutation("the decoupling of the last step alone counts", _SAMPLING,
             "torch.stack(weighted).mean()", "weighted[-1]", _OF_SAMPLING),
    Mutation("decoupling has a sign", _LOSSES, "dim=-1).abs().mean()", "dim=-1).mean()", _OF_LOSSES),
    Mutation("the divergence has a temperature of 1", _LOSSES,
             "temperature: float = 0.1", "temperature: float = 1.0", _OF_LOSSES),
    Mutation("the divergence is the other way round", _LOSSES,
             "(p.exp() * (p - q)).mean()", "(q.exp() * (q - p)).mean()", _OF_LOSSES),
    Mutation("the moments are averaged over channels", _LOSSES,
             ".square().mean((0, 2, 3)).sum()", ".square().mean()", _OF_LOSSES),
    Mutation("TAU's divergence weighs a hundredth", "plasm/tasks/prediction.py",
             "divergence_weight: float = 0.1", "divergence_weight: float = 0.01", _OF_PREDICTION),
    Mutation(
        "a rollout begins with the clip each time", "plasm/tasks/prediction.py",
        "window = torch.cat([clip, prediction], 1)[:, -self.in_frames :]", "window = clip", _OF_PREDICTION,
    ),
    Mutation("PredRNNv2 decouples on KTH as elsewhere", "plasm/models/predrnn.py",
             '"kth": 0.01}', '"kth": 0.1}', _OF_RECIPES, "training_are_openstls"),
    Mutation("phase 1 hides other pixels of Moving MNIST", "plasm/models/_benchmarks.py",
             '"mmnist": {"mask_ratio": 0.96}', '"mmnist": {"mask_ratio": 0.9}', _OF_RECIPES, "phase_1"),
    Mutation("phase 1 rebuilds the masked clip", "plasm/tasks/pretraining.py",
             "weigh(rebuilt, clip, weight), clip)", "weigh(rebuilt, clip, weight), shown)", _OF_RUNS, "hides_pixels"),
    Mutation("parts of a batch add up", _TRAINER, "loss = loss.float() / len(batch)", "loss = loss.float()",
             "tests/training/test_trainer.py", "accumulated"),
    Mutation("a loss's terms add up over parts", _TRAINER,
             "losses[name].detach().float() / len(batch)", "losses[name].detach().float()", _OF_RUNS, "each_loss"),
    Mutation("every step of an epoch draws the same", _TRAINER,
             "counter_hash(self.config.seed, state.epoch, step, self.group.rank)",
             "counter_hash(self.config.seed, state.epoch, 0, self.group.rank)", _OF_RUNS, "knows_its_step"),
    Mutation("all layers have one rate", "plasm/training/optim.py",
             'config.lr * group.pop("lr_scale")', 'config.lr * bool(group.pop("lr_scale"))',
             "tests/training/test_optim.py", "each_layer"),
)  # fmt: skip


def mutate(copy: Path, mutation: Mutation) -> str:
    """Put a fault into a copy of the repository; returns what stood in the file.

    Raises:
        ValueError: If the file has not the text once.
    """
    file = copy / mutation.file
    text = file.read_text(encoding="utf-8")
    if text.count(mutation.right) != 1:
        raise ValueError(
            f"{mutation.name}: {mutation.file} has {mutation.right!r} {text.count(mutation.right)} times, wanted once"
        )
    file.write_text(text.replace(mutation.right, mutation.wrong), encoding="utf-8")
    return text


def passes(copy: Path, mutations: Iterable[Mutation]) -> bool:
    """Whether the tests of mutations pass in a copy of the repository."""
    return all(_passes(copy, *test) for test in dict.fromkeys((each.test, each.only) for each in mutations))


def _passes(copy: Path, test: str, only: str) -> bool:
    # A fork has torch already, and nothing of plasm yet.
    process = get_context("fork").Process(target=_run, args=(copy, test, only))
    process.start()
    process.join()
    if process.exitcode not in (0, 1):
        raise RuntimeError(f"pytest {test} -k {only!r} ended with {process.exitcode}")
    return process.exitcode == 0


def _run(copy: Path, test: str, only: str) -> None:
    os.chdir(copy)
    sys.path.insert(0, str(copy))
    with Path(os.devnull).open("w", encoding="utf-8") as nothing:
        for stream in (1, 2):
            os.dup2(nothing.fileno(), stream)
    options = ["-n", "0", "-q", "-x", "-p", "no:cacheprovider", "--rootdir", str(copy), test]
    code = pytest.main([*options, *(["-k", only] if only else [])])
    import plasm

    # Had another plasm been tested, nothing would be seen.
    os._exit(int(code) if Path(plasm.__file__).is_relative_to(copy) else 99)


def main(names: list[str]) -> int:
    """Try the mutations of these names, all by default; how many survive."""
    if unknown := set(names) - {mutation.name for mutation in MUTATIONS}:
        print(f"no fault is called {', '.join(sorted(unknown))}: tools/mutations.py lists them")
        return 1
    chosen = [mutation for mutation in MUTATIONS if not names or mutation.name in names]
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder).resolve()
        for name in COPIED:
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
        if not passes(copy, chosen):
            print("a test fails without any fault")
            return 1
        for mutation in chosen:
            before = mutate(copy, mutation)
            survived = passes(copy, [mutation])
            (copy / mutation.file).write_text(before, encoding="utf-8")
            print(f"{'SURVIVED' if survived else 'seen'}  {mutation.name} ({mutation.test})", flush=True)
            survivors += [mutation] if survived else []
    print(f"{len(chosen)} faults, {len(survivors)} survived")
    return len(survivors)


if __name__ == "__main__":
    sys.exit(min(1, main(sys.argv[1:])))
