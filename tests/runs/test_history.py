import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from plasm import training, weights
from plasm.data import SAMPLES
from plasm.distributed import SINGLE_PROCESS
from plasm.runs import RunConfig, export_run, freezes_encoder, history_of, read_earlier, read_history
from plasm.training import PretrainConfig, TrainConfig
from plasm.training.assembly import prepare

MODEL: dict[str, Any] = {"encoder_dim": 8, "translator_dim": 16, "translator_depth": 1}


def run(kind: type[RunConfig], root: Path, out: Path, epochs: int, **options: Any) -> Path:
    training.run(
        kind(
            model="plasm_mmnist_tiny", data="mmnist", data_dir=str(root), out=str(out), epochs=epochs,
            clips_per_epoch=8, batch_size=4, val_clips=2, device="cpu", model_args=MODEL, **options,
        )
    )  # fmt: skip
    return out


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A run of phase 1, one of phase 2 from it, and another from that."""
    root = tmp_path_factory.mktemp("runs")
    one = run(PretrainConfig, SAMPLES, root / "one", 1)
    two = run(TrainConfig, SAMPLES, root / "two", 2, init=str(one))
    return [one, two, run(TrainConfig, SAMPLES, root / "three", 1, init=str(two))]


def test_a_run_knows_those_that_led_to_it(chain: list[Path]) -> None:
    history = read_history(chain[2])
    assert [recipe["command"] for recipe in history] == ["pretrain", "train", "train"]
    assert [recipe["clips"] for recipe in history] == [8, 16, 8]
    assert [Path(recipe["out"]) for recipe in history] == chain
    assert [recipe["command"] for recipe in read_history(chain[0])] == ["pretrain"]


def test_the_card_has_every_run(chain: list[Path]) -> None:
    def card() -> list[str]:
        text = weights.Card(data="mmnist", runs=read_history(chain[2])).render(chain[2], config, None)
        return text.partition("## Data and recipe\n\n")[2].partition("\n\n## ")[0].splitlines()

    config = json.loads((chain[2] / "config.json").read_text())
    config["weights"] = {"file": "model.safetensors", "size": 1, "sha256": "0" * 64}
    first, _, *runs = card()
    assert first == "Trained on `mmnist`, 24 clips seen in phase 2."
    assert [line.partition(":")[0] for line in runs] == [
        "* phase 1 (masked autoencoding)", "* phase 2 (prediction)", "* phase 2 (prediction)",
    ]  # fmt: skip
    assert all(text in line for text, line in zip(("epochs 1, ", "epochs 2, ", "epochs 1, "), runs, strict=True))
    # What was moved or trained anew since changes nothing.
    chain[1].rename(chain[1].with_name("moved"))
    try:
        assert card() == [first, "", *runs]
    finally:
        chain[1].with_name("moved").rename(chain[1])
    other = [{"command": "train", "data": "kth", "clips": 5}, {"command": "train", "data": "mmnist", "clips": 3}]
    assert "Trained on `mmnist`, 3 clips seen" in weights.Card(data="mmnist", runs=other).render(chain[2], config, None)
    secret = [{"command": "train", "data_args": {"file": "/home/me/cut.json", "cache": r"C:\home\me\c", "step": 2}}]
    text = weights.Card(data="mmnist", runs=secret).render(chain[2], config, None)
    assert "home" not in text
    assert "'file': 'cut.json', 'cache': 'c', 'step': 2" in text
    named = weights.Card(data="mmnist", runs=[{"weights": "hf-hub:a/b"}, *other]).render(chain[2], config, None)
    assert "* earlier: weights hf-hub:a/b" in named
    alone = weights.Card(data="mmnist", runs=[{"command": "train", "data": "mmnist", "clips": 3}]).render(
        chain[2], config, None
    )
    assert "* phase 1 (masked autoencoding): none\n* phase 2 (prediction): data mmnist, clips 3" in alone


def test_the_encoder_is_frozen_right_after_phase_1_alone(chain: list[Path]) -> None:
    for earlier, asked, frozen in (
        ([], None, False), (read_history(chain[0]), None, True), (read_history(chain[0]), False, False),
        (read_history(chain[1]), None, False), ([{"weights": "plasm_kth.test"}], None, False), ([], True, True),
    ):  # fmt: skip
        assert freezes_encoder(asked, earlier) is frozen
    assert [recipe.get("freeze_encoder") for recipe in read_history(chain[2])] == [None, True, False]


def test_a_name_that_everyone_can_load_is_told_and_a_path_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert history_of("plasm_mmnist_tiny.tag") == [{"weights": "plasm_mmnist_tiny.tag"}]
    assert history_of("hf-hub:some/one@main") == [{"weights": "hf-hub:some/one@main"}]
    assert history_of(str(tmp_path / "w.safetensors")) == [{"weights": "w.safetensors"}]
    monkeypatch.chdir(tmp_path)
    for name in ("plasm_mmnist_tiny", "plasm_mmnist_tiny.mmnist_v7"):
        Path(name).mkdir()
        for source in (f"./{name}", f"{name}/", str(tmp_path / name)):
            assert history_of(source) == [{"weights": f"./{name}"}]
    assert history_of(".") == [{"weights": tmp_path.name}]


def test_a_run_of_a_published_name_is_pushed(
    chain: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(chain[1], "plasm_mmnist_tiny")
    export_run(Path("plasm_mmnist_tiny"), Path("folder"), "a/b", "apache-2.0")
    assert Path("folder/model.safetensors").read_bytes() == (chain[1] / "model.safetensors").read_bytes()


def test_a_resumed_run_needs_neither_the_weights_it_began_with_nor_their_history(
    chain: list[Path], tmp_path: Path
) -> None:
    options: dict[str, Any] = {
        "model": "plasm_mmnist_tiny", "data": "mmnist", "data_dir": str(SAMPLES), "out": str(tmp_path / "out"),
        "epochs": 2, "clips_per_epoch": 4, "batch_size": 4, "val_clips": 1, "device": "cpu", "model_args": MODEL,
    }  # fmt: skip
    start = shutil.copytree(chain[0], tmp_path / "start")
    config = TrainConfig(**options, init=str(start))
    prepare(config, SINGLE_PROCESS, resume=True).fit(epochs=1)
    shutil.rmtree(start)
    trainer = prepare(config, SINGLE_PROCESS, resume=True)
    assert not any(p.requires_grad for p in trainer.task.model.encoder.parameters())  # type: ignore[union-attr]
    trainer.fit()
    assert [recipe["command"] for recipe in read_history(tmp_path / "out")] == ["pretrain", "train"]


def test_clips_are_those_of_the_weights(chain: list[Path], tmp_path: Path) -> None:
    """They are saved when they are measured; a run may have gone on, and been killed as it wrote its log."""
    copy = shutil.copytree(chain[1], tmp_path / "copy")
    config = copy / "config.toml"
    config.write_text(config.read_text().replace("\nepochs = 2\n", "\nepochs = 4\n"))
    with (copy / "log.jsonl").open("a") as log:
        log.write('{"epoch": 3, "clips": 24, "loss": 0.1}\n{"epoch": 4, "cl')
    assert (read_history(copy)[-1]["epochs"], read_history(copy)[-1]["clips"]) == (2, 16)
    (copy / "history.json").write_text("[")
    with pytest.raises(ValueError, match=r"history\.json is damaged"):
        read_history(copy)


@pytest.mark.parametrize(
    "content",
    [
        "null", "{}", '{"command": "train"}', "[1]", "[null]", "[[]]", '[{"weights": 1}]', '[{"command": "other"}]',
        '[{"command": ["train"], "data": "mmnist"}]', '[{"command": "train", "data": "mmnist", "clips": "8"}]',
        '[{"command": "train", "data": "mmnist", "clips": true}]', '[{"command": "train", "data": 3}]',
        '[{"command": "train", "data": "mmnist", "data_args": [1]}]', "[" * 100_000, "", "[{]",
    ],
)  # fmt: skip
def test_a_history_that_is_not_what_it_should_be(content: str, tmp_path: Path) -> None:
    (tmp_path / "history.json").write_text(content)
    with pytest.raises(ValueError, match=r"history\.json is damaged: ") as refused:
        read_earlier(tmp_path)
    assert len(str(refused.value)) < 400


def test_what_was_measured_is_what_evaluate_wrote(chain: list[Path], tmp_path: Path) -> None:
    run = chain[1]
    sha256 = weights.file_sha256(run / "model.safetensors")
    good: dict[str, Any] = {
        "sha256": sha256, "data": "mmnist", "num_clips": 2, "date": "2025-01-01", "options": "--data mmnist",
        "metrics": {"model": {"mse": 1.0}},
    }  # fmt: skip
    file = run / "metrics.json"
    try:
        file.write_text(json.dumps(good))
        export_run(run, tmp_path, "a/b", "apache-2.0")
        bad = [{**good, **change} for change in (
            {"metrics": None}, {"metrics": {}}, {"metrics": {"model": [1]}}, {"metrics": {"model": {"mse": "1"}}},
            {"num_clips": "2"}, {"data": 1}, {"options": None}, {"date": {}},
        )]  # fmt: skip
        for content in ("null", "[1]", "[" * 100_000, "{", *map(json.dumps, bad)):
            file.write_text(content)
            with pytest.raises(ValueError, match=r"metrics\.json is damaged"):
                export_run(run, tmp_path, "a/b", "apache-2.0")
    finally:
        file.unlink()
