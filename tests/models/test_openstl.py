import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from plasm.models import TAU, SimVP, openstl

SAMPLE = Path(__file__).with_name("openstl_configs.csv")
"""Some of OpenSTL's configurations, one a row: facts, not its files."""
CONFIGS = Path(os.environ.get("PLASM_PEERS", Path(__file__).parents[3] / "shared" / "peers")) / "openstl_configs.csv"
"""All of those for five data sets."""
ABSENT = ("swinlstm", "mmvp", "wast")
CONFIG: dict[str, Any] = {
    "method": "SimVP", "in_shape": [2, 1, 16, 16], "model_type": "gSTA", "hid_S": 4, "hid_T": 16, "N_S": 2, "N_T": 2,
    "mlp_ratio": 2.0,
}  # fmt: skip


def theirs(model: nn.Module) -> dict[str, torch.Tensor]:
    """A gSTA model's tensors by OpenSTL's names."""
    out = {}
    for name, tensor in model.state_dict().items():
        for new, old in [
            ("encoder.blocks.", "enc.enc."), ("decoder.readout.", "dec.readout."), ("decoder.blocks.", "dec.dec."),
            ("translator.blocks.", "hid.enc."), ("mixer.proj_in", "attn.proj_1"), ("mixer.proj_out", "attn.proj_2"),
            ("mixer.dwconv_dilated", "attn.spatial_gating_unit.conv_spatial"),
            ("mixer.dwconv", "attn.spatial_gating_unit.conv0"), ("mixer.pwconv", "attn.spatial_gating_unit.conv1"),
            ("scale1", "layer_scale_1"), ("scale2", "layer_scale_2"), ("mlp.dwconv", "mlp.dwconv.dwconv"),
        ]:  # fmt: skip
            name = name.replace(new, old)
        parts = name.split(".")
        if parts[:2] in (["enc", "enc"], ["dec", "dec"]):
            parts.insert(3, "conv")
            if parts[:3] == ["dec", "dec", "0"] and parts[4] == "conv":
                parts.insert(5, "0")
        out[".".join(parts)] = tensor.flatten() if "layer_scale" in name else tensor
    return out


def test_tensors_come_by_openstls_names_with_any_prefix() -> None:
    model = openstl.create(CONFIG).eval()
    clip = torch.rand(1, 2, 1, 16, 16)
    plain = theirs(model)
    assert "dec.dec.0.conv.conv.0.weight" in plain
    for prefix in ("", "model.", "module.", "module.model."):
        state = {prefix + name: tensor for name, tensor in plain.items()}
        for content in (state, {"state_dict": state, "epoch": 3}):
            loaded = openstl.load(CONFIG, content)
            assert not loaded.training
            torch.testing.assert_close(loaded.predict(clip, 5), model.predict(clip, 5), rtol=0, atol=0)


def test_a_state_dict_of_another_model_is_an_error() -> None:
    state = theirs(openstl.create(CONFIG))
    with pytest.raises(ValueError, match="the state dict does not fit the model"):
        openstl.load({**CONFIG, "hid_T": 32}, state)


@pytest.mark.parametrize(
    ("config", "translator"),
    [
        ({**CONFIG, "model_type": None}, "gsta"),
        ({**CONFIG, "model_type": "GSTA"}, "gsta"),
        ({**CONFIG, "model_type": "mlp"}, "mlpmixer"),
        ({**CONFIG, "model_type": "Moga"}, "moganet"),
        ({**CONFIG, "method": None, "model_type": None, "model": "SimVP_ViT"}, "vit"),
        ({**CONFIG, "method": "simvp", "model": "SimVP_ViT"}, "gsta"),
    ],
)
def test_the_configuration_names_the_translator(config: dict[str, Any], translator: str) -> None:
    model = openstl.create(config)
    assert isinstance(model, SimVP)
    assert model.translator.name == translator


def test_tau_and_incepu() -> None:
    assert isinstance(openstl.create({**CONFIG, "method": "TAU", "model_type": "tau"}), TAU)
    assert isinstance(openstl.create({**CONFIG, "method": None, "model": "SimVP_TAU", "model_type": None}), TAU)
    incepu = openstl.create({**CONFIG, "model_type": "IncepU"})
    assert len(incepu.translator.blocks) == 4


def test_missing_keys_have_openstls_defaults() -> None:
    model = openstl.create({"method": "SimVP", "dataname": "taxibj"})
    assert (model.in_frames, model.in_chans, model.out_frames, model.img_size) == (4, 2, 4, (32, 32))
    assert model.encoder.num_features == 16
    assert len(model.encoder.blocks) == len(model.translator.blocks) == 4
    assert model.translator.out_dims == [256, 256, 256, 64]
    assert model.translator.blocks[1].block.mlp.fc1.out_channels == 8 * 256


def test_values_may_be_text() -> None:
    config = {"method": "PredRNN", "num_hidden": "128, 64", "in_shape": "4,1,32,32", "aft_seq_length": "6"}
    read = openstl.read_config(config)
    assert (read["method"], read["num_hidden"]) == ("predrnn", [128, 64])
    assert (read["in_shape"], read["pre_seq_length"], read["aft_seq_length"]) == ((4, 1, 32, 32), 4, 6)
    assert openstl.create({**CONFIG, "hid_T": "24", "N_T": "3"}).translator.out_dims == [24, 24, 8]


def test_a_file_is_read_as_openstl_writes_it(tmp_path: Path) -> None:
    file = tmp_path / "model_param.json"
    file.write_text(json.dumps({**CONFIG, "lr": 0.001, "gpus": [0], "fps": False}), encoding="utf-8")
    assert openstl.create(file).translator.out_dims == [16, 8]
    for text in ("[1]", "{", "\x00", "[" * 10**5):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=r"model_param\.json is no model_param\.json of OpenSTL"):
            openstl.create(file)
    with pytest.raises(FileNotFoundError):
        openstl.create(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": None}, 'names no system: it has neither "method" nor "model"'),
        ({"method": "CrevNet"}, 'plasm has no "crevnet" of OpenSTL; it has .*simvp'),
        ({"model_type": "resnet"}, 'no model_type "resnet"'),
        ({"in_shape": None}, 'has no "in_shape"'),
        ({"in_shape": [2, 1, 16]}, "an in_shape of"),
        ({"in_shape": [2, 0, 16, 16]}, "numbers from 1"),
        ({"hid_S": "many"}, "a value that is no number"),
        ({"hid_S": 5}, "do not divide encoder_dim = 5"),
        ({"num_hidden": "a,b"}, "has num_hidden = 'a,b'"),
        ({"hid_S": float("inf")}, "a value that is no number"),
        ({"pre_seq_length": 2.5}, r"pre_seq_length = 2\.5, where numbers from 1 are expected"),
        ({"hid_S": 4.9}, "a fraction where a whole number is needed: hid_S = 4.9"),
        ({"in_shape": [float("inf"), 1, 16, 16]}, "numbers from 1"),
        ({"N_S": 4_000_000_000}, "plasm builds it up to"),
        ({"hid_T": 65_536, "N_T": 64}, "a model of .* parameters"),
        ({"hid_S": 10**400}, "plasm builds it up to"),
    ],
)
def test_what_is_no_configuration_is_an_error(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = tmp_path / "model_param.json"
    file.write_text("\ufeff" + json.dumps({**CONFIG, **change}), encoding="utf-8")
    for config in ({**CONFIG, **change}, file):
        with pytest.raises(ValueError, match=message) as error:
            openstl.create(config)
        assert isinstance(config, dict) or str(file) in str(error.value)
        assert len(str(error.value)) < 700
        assert not any(words in str(error.value) for words in ("invalid literal", "cannot convert", "codec"))


def test_files_that_are_no_configuration_are_not_waited_for_or_read_whole(tmp_path: Path) -> None:
    for name in ("config.py", "model_param.json"):
        file = tmp_path / name
        os.mkfifo(file)
        with pytest.raises(FileNotFoundError, match=f"{name} is not there, or no file"):
            openstl.create(file)
        file.unlink()
        file.write_bytes(b"\xff\xfe")
        with pytest.raises(ValueError, match=f"{name} is no .* of OpenSTL: its byte 0 is not UTF-8"):
            openstl.create(file)
        with file.open("wb") as content:
            content.truncate(1 << 40)
        with pytest.raises(ValueError, match=f"{name} is no .* of OpenSTL: it has 1,099,511,627,776 bytes"):
            openstl.create(file)


def as_python(row: dict[str, str]) -> str:
    """A row of the table as OpenSTL writes it: a file of assignments."""
    texts = ("method", "model_type", "num_hidden", "sched", "cell_mode", "model_mode")
    given = {name: value for name, value in row.items() if value and name not in ("data", "config")}
    lines = (f"{name} = {value!r}" if name in texts else f"{name} = {value}" for name, value in given.items())
    return "# model\n" + "\n".join(lines) + "\nsave_best_hook = dict()\n"


@pytest.mark.parametrize("table", [SAMPLE, CONFIGS], ids=["some", "all"])
def test_openstls_own_configurations_build(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not table.is_file():
        pytest.skip(f"no {table}: PLASM_PEERS names its folder")
    for draw in ("normal_", "uniform_"):
        # Slow on the meta device, where there is nothing to draw.
        monkeypatch.setattr(torch.Tensor, draw, lambda tensor, *_, **__: tensor)
    file, built = tmp_path / "config.py", set()
    for row in csv.DictReader(table.open(encoding="utf-8")):
        file.write_text(as_python(row), encoding="utf-8")
        if row["method"].lower().startswith(ABSENT):
            with pytest.raises(ValueError, match=f'plasm has no "{row["method"].lower()}"'):
                openstl.create(file, row["data"])
            continue
        with torch.device("meta"):
            model: Any = openstl.create(file, row["data"])
        built.add(type(model).__name__)
        shape, later = openstl._DATA_SETS[row["data"]]
        assert (model.in_frames, model.in_chans, *(model.img_size or shape[2:]), model.out_frames) == (*shape, later), (
            row["config"]
        )
        if row["method"] in ("SimVP", "TAU"):
            assert model.encoder.num_features == int(row["hid_S"])
        elif row["num_hidden"]:
            dims = getattr(model, "hidden_dims", [model.num_features] * len(model.cells))
            assert ",".join(map(str, dims)) == row["num_hidden"]
    assert len(built) == 10


def test_a_python_file_is_read_and_never_run(tmp_path: Path) -> None:
    file, opened = tmp_path / "config.py", tmp_path / "opened"
    text = (
        '"""A model."""\nimport os\nmethod: str = "SimVP"\nhid_S = hid_T = 8  # channels\n'
        f'workers = os.cpu_count()\nfile = open({str(opened)!r}, "w")\n'
    )
    file.write_text(text, encoding="utf-8")
    read = openstl.read_config(file, "mmnist")
    assert (read["method"], read["hid_S"], read["hid_T"], read["workers"]) == ("simvp", 8, 8, "os.cpu_count()")
    for line in (
        "if True: hid_S = 9", "hid_S += 1", "from other import hid_S", "hid_S, hid_T = 9, 9", "_base_ = '../base.py'",
        "hid_S = (", "hid_S = " + "(" * 10**4, "\0",
    ):  # fmt: skip
        file.write_text(f"{text}\n{line}\n", encoding="utf-8")
        with pytest.raises(ValueError, match=r"config\.py is no configuration in Python of OpenSTL"):
            openstl.read_config(file, "mmnist")
    file.write_text("method = 'SimVP'\nhid_S = 2 ** 5", encoding="utf-8")
    with pytest.raises(ValueError, match=r"a value that is no number: .*2 \*\* 5"):
        openstl.create(file, "mmnist")
    assert not opened.exists()


@pytest.mark.parametrize(
    ("data", "shape", "later"),
    [
        ("bair", (4, 3, 64, 64), 12),
        ("noisymmnist", (10, 1, 64, 64), 10),
        ("Kinetics600", (4, 3, 256, 256), 4),
        ("weather_mv_4_28_s6_5_625", (4, 12, 32, 64), 28),
        ("weather_uv10_5_625", (12, 2, 32, 64), 12),
        ("weather_t2m_1_40625", (12, 1, 128, 256), 12),
        ("kth40", (10, 1, 128, 128), 40),
    ],
)
def test_the_data_set_says_what_frames_a_model_is_for(data: str, shape: tuple[int, ...], later: int) -> None:
    named = openstl.read_config({"method": "SimVP", "dataname": "mmnist"}, data)
    assert named == openstl.read_config({"method": "SimVP", "dataname": data}) | {"dataname": "mmnist"}
    assert (named["in_shape"], named["pre_seq_length"], named["aft_seq_length"]) == (shape, shape[0], later)


def test_what_the_data_set_cannot_be() -> None:
    with pytest.raises(ValueError, match=r'has no "in_shape".*--data .*mmnist.*weather_mv'):
        openstl.create({"method": "SimVP"})
    with pytest.raises(ValueError, match='OpenSTL has no data set "moving"; it has bair, human'):
        openstl.create({"method": "SimVP"}, "moving")
    with pytest.raises(ValueError, match="which are not those of kth: leave --data out"):
        openstl.create(CONFIG, "kth")
    with pytest.raises(ValueError, match=r"10 -> 5 frames .* which are not those of mmnist"):
        openstl.create({"method": "SimVP", "aft_seq_length": 5}, "mmnist")
