import dataclasses
from pathlib import Path
from typing import Any

import pytest

from plasm.runs import PretrainConfig, TrainConfig, config_differences, create_config

GIVEN: dict[str, Any] = {"model": "plasm_kth", "data": "kth", "data_dir": "d", "out": "o"}


def test_what_is_given_goes_over_the_file_and_that_over_the_models_defaults(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        'model = "plasm_kth"\ndata = "kth"\ndata_dir = "d"\nout = "o"\nepochs = 7\nlr = 0.5\n'
        "[model_args]\nskip = false\nnum_heads = 4\n"
    )
    config = create_config(TrainConfig, {"lr": 0.25, "model_args": {"num_heads": 8}}, file)
    assert (config.lr, config.epochs, config.model_args) == (0.25, 7, {"skip": False, "num_heads": 8})
    # Of the model and the record.
    assert (create_config(TrainConfig, GIVEN).epochs, create_config(TrainConfig, GIVEN).batch_size) == (100, 16)


def test_entries_of_tables_go_over_those_of_the_file_and_the_recipe(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("[task_args]\nsampling_alpha = 2500\ndecouple_weight = 0.5\n", encoding="utf-8")
    given = {**GIVEN, "model": "predrnnv2_kth", "task_args": {"decouple_weight": 0.25}}
    assert create_config(TrainConfig, given, file).task_args == {
        "sampling_stop": 50_000, "reverse_sampling": True, "sampling_alpha": 2500, "decouple_weight": 0.25,
    }  # fmt: skip
    assert create_config(TrainConfig, {**GIVEN, "opt_args": {"eps": 1e-3}}).opt_args == {"eps": 1e-3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "is not TOML"),
        ("ephocs = 3", "unknown options: ephocs; there are: accumulate, "),
        ('command = "pretrain"', "is for `plasm pretrain`, this is `plasm train`"),
        ('epochs = "many"', "epochs is int, got 'many'"),
        ("bf16 = 1", r"bf16 is bool \| None, got 1"),
        ("epochs = true", "epochs is int, got True"),
        ('schedule = "linear"', "schedule is one of onecycle, cosine, exponential, constant, wsd, got 'linear'"),
        ("model_args = 3", "model_args is dict"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        create_config(TrainConfig, GIVEN, tmp_path / "run.toml")


def test_missing_fields_are_named_as_options(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="missing: --model, --data-dir; give it here or in the file"):
        create_config(TrainConfig, {"data": "kth", "out": "o"})
    with pytest.raises(FileNotFoundError, match="no configuration file"):
        create_config(TrainConfig, GIVEN, tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs is at least 1"),
        ({"batch_size": 17, "clips_per_epoch": 16}, "an epoch holds a batch"),
        ({"accumulate": 3}, "accumulate 3 does not divide batch_size 16"),
        ({"ema": 1.0}, "ema is a decay"),
        ({"lr": 0.0}, "lr is a rate above 0, got 0.0"),
        ({"lr": -0.01}, "lr is a rate above 0"),
        ({"lr": float("inf")}, "lr is a rate above 0"),
        ({"workers": -1}, "at least 0"),
    ],
)
def test_values_out_of_range(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PretrainConfig(**GIVEN, **changes)


def test_differences_are_of_what_changes_the_run(tmp_path: Path) -> None:
    config = TrainConfig(**GIVEN, model_args={"dims": (1, 2)})
    config.save(tmp_path / "config.toml")
    same = dataclasses.replace(config, out="p", workers=3, device="cpu", accumulate=2)
    assert config_differences(same, tmp_path / "config.toml") == []
    other = dataclasses.replace(config, seed=1, init="phase1")
    assert config_differences(other, tmp_path / "config.toml") == [
        "init is 'phase1', was None",
        "seed is 1, was 0",
    ]


def test_a_mask_ratio_that_falls_keeps_the_epochs_over_which_it_does(tmp_path: Path) -> None:
    """More of them would let it jump back, where a constant one may go on."""
    for end, refused in ((0.5, True), (0.0, True), (None, False)):
        config = PretrainConfig(**GIVEN, schedule="wsd", epochs=20, mask_ratio_end=end)
        config.save(tmp_path / "config.toml")
        longer = dataclasses.replace(config, epochs=40)
        said = config_differences(longer, tmp_path / "config.toml")
        assert [each.partition(" (")[0] for each in said] == ["epochs is 40, was 20"] * refused
        assert all("(--mask-ratio-end spreads the mask ratio over all epochs" in each for each in said)
        assert config_differences(dataclasses.replace(config, decay_epochs=5), tmp_path / "config.toml") == []


def test_an_option_that_an_earlier_version_did_not_know_had_its_default(tmp_path: Path) -> None:
    config, file = TrainConfig(**GIVEN), tmp_path / "config.toml"
    config.save(file)
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(line for line in lines if not line.startswith("optimizer")), encoding="utf-8")
    assert config_differences(config, file) == []
    muon = dataclasses.replace(config, optimizer="muon")
    assert config_differences(muon, file) == ["optimizer is 'muon', was 'adam'"]
