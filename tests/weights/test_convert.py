import argparse
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models import load_state_dict

from plasm import weights

TENSORS = {"encoder.a": torch.arange(6.0).view(2, 3), "model_dim": torch.ones(2)}


def prefixed(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in TENSORS.items()}


@pytest.mark.parametrize(
    "content",
    [
        TENSORS,
        prefixed("module."),
        {"state_dict": prefixed("model."), "epoch": 3, "hyper_parameters": {"lr": 0.1}, "callbacks": {}},
        {"model": prefixed("_orig_mod.module."), "optimizer": {"state": {}}},
        {"model_state_dict": prefixed("module._orig_mod.")},
        {"state_dict": OrderedDict(TENSORS), "loops": None},
    ],
)
def test_tensors_come_out_with_plain_names(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "old.ckpt")
    read = weights.read_checkpoint(tmp_path / "old.ckpt")
    assert list(read) == list(TENSORS)
    assert all(torch.equal(read[name], tensor) for name, tensor in TENSORS.items())


RAW, AVERAGE = {"w": torch.zeros(2)}, {"w": torch.ones(2)}
OPTIMIZER = {"state": {0: {"exp_avg": torch.ones(2), "step": torch.ones(())}}, "param_groups": [{"lr": 0.1}]}


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ({"state_dict": RAW, "state_dict_ema": AVERAGE, "args": argparse.Namespace(model="a")}, "state_dict_ema"),
        ({"model": RAW, "model_ema": AVERAGE, "optimizer": OPTIMIZER, "epoch": 3}, "model_ema"),
        ({"params": RAW, "params_ema": AVERAGE}, "params_ema"),
        ({"net": RAW, "net_ema": AVERAGE}, "net_ema"),
        ({"state_dict": RAW, "ema_generator": AVERAGE}, "ema_generator"),
        ({"model": RAW, "swa_model": {"module.w": AVERAGE["w"], "n_averaged": torch.tensor(7)}}, "swa_model"),
        ({"model": RAW, "ema": {"module": AVERAGE, "decay": 0.99}}, "ema.module"),
        ({"state_dict": AVERAGE, "state_dict_ema": None, "model": RAW}, "state_dict"),
        ({"model": AVERAGE, "model_state_dict": RAW}, "model"),
        ({"model": {"dim": 3}, "net_param": AVERAGE}, "net_param"),
        ({"module": AVERAGE, "optimizer": OPTIMIZER, "hyper_parameters": {"weight": RAW["w"], "lr": 0.1}}, "module"),
        ({"backbone": AVERAGE, "optimizer": OPTIMIZER}, "backbone"),
        ({"checkpoint": {"state_dict": RAW, "state_dict_ema": AVERAGE}}, "checkpoint.state_dict_ema"),
        ({"module.w": AVERAGE["w"], "n_averaged": torch.tensor(7)}, ""),
    ],
)
def test_an_average_is_taken_before_the_weights_as_timm_does(tmp_path: Path, content: Any, key: str) -> None:
    torch.save(content, tmp_path / "old.pth")
    taken, read = weights.read_entry(tmp_path / "old.pth")
    assert taken == key
    assert list(read) == ["w"]
    assert torch.equal(read["w"], AVERAGE["w"])
    if key in ("state_dict_ema", "model_ema", "state_dict", "model"):
        assert torch.equal(load_state_dict(str(tmp_path / "old.pth"))["w"], AVERAGE["w"])


def test_what_was_taken_is_said_and_chosen(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "old.pth"
    torch.save({"epoch": 3, "state_dict": RAW, "state_dict_ema": AVERAGE}, file)
    assert torch.equal(weights.read_checkpoint(file)["w"], AVERAGE["w"])
    assert caplog.messages == [f'{file}: took "state_dict_ema"; --key takes another: state_dict']
    caplog.clear()
    assert torch.equal(weights.read_checkpoint(file, "state_dict")["w"], RAW["w"])
    assert not caplog.messages
    with pytest.raises(ValueError, match=r'no entry "model" of tensors; it holds state_dict, state_dict_ema'):
        weights.read_checkpoint(file, "model")
    with pytest.raises(ValueError, match=r'no entry "epoch" of tensors'):
        weights.read_checkpoint(file, "epoch")


@pytest.mark.parametrize(
    ("name", "average"),
    [
        ("ema", {"decay": 0.999, "shadow_params": list(AVERAGE.values()), "collected_params": None}),
        ("ema_params", list(AVERAGE.values())),
    ],
)
def test_an_average_without_names_is_not_passed_over_in_silence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, average: Any
) -> None:
    torch.save({"model": RAW, name: average, "ema_decay": 0.999}, file := tmp_path / "old.pth")
    assert torch.equal(weights.read_checkpoint(file)["w"], RAW["w"])
    assert caplog.messages == [f'{file}: took "model", not the average in {name}, whose tensors have no names']
    # Of an entry within another, both by their whole names; and not at all where an average was taken.
    caplog.clear()
    torch.save({"state": {"model": RAW, name: average}}, file)
    assert torch.equal(weights.read_checkpoint(file)["w"], RAW["w"])
    assert f'took "state.model", not the average in state.{name}' in caplog.messages[-1]
    caplog.clear()
    torch.save({"model_ema": AVERAGE, "ema_list": list(AVERAGE.values())}, file)
    assert torch.equal(weights.read_checkpoint(file)["w"], AVERAGE["w"])
    assert not caplog.messages


@pytest.mark.parametrize(
    "content", [{"generator": RAW, "discriminator": AVERAGE}, {"net": RAW, "ema_fast": RAW, "ema_slow": AVERAGE}]
)
def test_a_choice_that_nobody_made_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "old.pth")
    with pytest.raises(ValueError, match=r"several sets of tensors, .*choose one with --key"):
        weights.read_checkpoint(tmp_path / "old.pth")
    for key in content:
        assert torch.equal(weights.read_checkpoint(tmp_path / "old.pth", key)["w"], content[key]["w"])


def test_an_entry_within_another_is_taken_by_the_name_that_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "old.pth"
    torch.save({"model": {"generator": RAW, "discriminator": AVERAGE}}, file)
    with pytest.raises(ValueError, match=r"model\.generator, model\.discriminator: choose one with --key"):
        weights.read_checkpoint(file)
    assert torch.equal(weights.read_checkpoint(file, "model.discriminator")["w"], AVERAGE["w"])
    with pytest.raises(ValueError, match=r'no entry "model\.x" of tensors; it holds model\.generator, model\.disc'):
        weights.read_checkpoint(file, "model.x")
    torch.save({"model": {"ema": AVERAGE, "params.old": RAW}}, file)
    weights.read_checkpoint(file)
    assert caplog.messages == [f'{file}: took "model.ema"; --key takes another: model.params.old']
    assert torch.equal(weights.read_checkpoint(file, "model.params.old")["w"], RAW["w"])


def test_tied_and_strided_tensors_can_be_saved(tmp_path: Path) -> None:
    tensor = torch.rand(3, 4)
    torch.save({"a": tensor, "b": tensor, "c": tensor.t(), "d": tensor[1:]}, tmp_path / "old.pth")
    weights.save_tensors(weights.read_checkpoint(tmp_path / "old.pth"), tmp_path / "new.safetensors")
    again = weights.load_tensors(tmp_path / "new.safetensors")
    assert torch.equal(again["a"], tensor)
    assert torch.equal(again["b"], tensor)
    assert torch.equal(again["c"], tensor.t())
    assert torch.equal(again["d"], tensor[1:])


class Bomb:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return open, (str(self.file), "w")


def test_nothing_in_a_checkpoint_is_run(tmp_path: Path) -> None:
    torch.save({"state_dict": TENSORS, "callback": Bomb(tmp_path / "opened")}, tmp_path / "old.ckpt")
    with pytest.raises(ValueError, match=r"old\.ckpt holds Python objects beside tensors"):
        weights.read_checkpoint(tmp_path / "old.ckpt")
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(1)], "holds a list, not tensors"),
        ({"epoch": 3, "lr": 0.1}, "no dense tensor with a name: epoch, lr"),
        ({"model.a": torch.ones(1), "a": torch.ones(1)}, "two tensors that would be called a"),
        ({}, "not tensors with names"),
        ({"a": torch.ones(2), "more": {"b": torch.ones(2)}}, "no dense tensor with a name: more"),
        ({"state_dict": {"a": torch.ones(2), "version": 3}}, "no dense tensor with a name: version"),
        ({"a": torch.ones(2).to_sparse(), 3: torch.ones(1)}, "no dense tensor with a name: a, 3"),
    ],
)
def test_what_is_no_checkpoint_is_an_error(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "old.pth")
    with pytest.raises(ValueError, match=message):
        weights.read_checkpoint(tmp_path / "old.pth")


def test_files_that_are_not_there_or_not_whole(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not there"):
        weights.read_checkpoint(tmp_path / "none.pth")
    torch.save(TENSORS, tmp_path / "old.pth")
    content = (tmp_path / "old.pth").read_bytes()
    for part in (content[: len(content) // 2], content[:10], b"no checkpoint at all", b""):
        (tmp_path / "part.pth").write_bytes(part)
        with pytest.raises(ValueError, match=r"part\.pth"):
            weights.read_checkpoint(tmp_path / "part.pth")


def test_damaged_bytes_are_never_more_than_a_clear_error(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "old.pth")
    content, refused = (tmp_path / "old.pth").read_bytes(), 0
    for place in range(0, len(content), len(content) // 150):
        (tmp_path / "bad.pth").write_bytes(content[:place] + bytes([content[place] ^ 0x5A]) + content[place + 1 :])
        try:
            weights.read_checkpoint(tmp_path / "bad.pth")
        except ValueError:
            refused += 1
    assert refused > 10


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "is a Git LFS pointer"),
        (b"\n <!DOCTYPE html><html></html>", "is a web page"),
        (b'{"error": "not found"}', "is JSON"),
        (b"", "is empty"),
        (b"hello", "begins with b'hello'"),
    ],
)
def test_what_lies_where_weights_should_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    for name, read in (("a.pth", weights.read_checkpoint), ("a.safetensors", weights.load_tensors)):
        (tmp_path / name).write_bytes(content)
        if content != b"hello" or name == "a.pth":
            with pytest.raises((ValueError, OSError), match=rf"a\..*{message}"):
                read(tmp_path / name)
    weights.save_tensors({"a": torch.zeros(3)}, tmp_path / "b.pth")
    with pytest.raises(ValueError, match="is a safetensors file already"):
        weights.read_checkpoint(tmp_path / "b.pth")
    with tarfile.open(tmp_path / "c.pth", "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    with pytest.raises(ValueError, match=r"c\.pth is no checkpoint of torch: it is a tar archive.* save") as error:
        weights.read_checkpoint(tmp_path / "c.pth")
    assert "weights_only" not in str(error.value)


def test_what_would_fill_the_machine_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "old.pth"
    torch.save({"a": torch.zeros(1).expand(10**5, 10**5)}, file)
    assert file.stat().st_size < 2000
    with pytest.raises(
        ValueError, match=r"old\.pth holds 4 bytes of values, .* repeat to 40\.0 GB: a \(100000, 100000\)"
    ):
        weights.read_checkpoint(file)
    one = torch.zeros(10**6)
    torch.save({f"t{number}": one for number in range(100)}, file)
    with pytest.raises(ValueError, match=r"repeat to 0\.4 GB"):
        weights.read_checkpoint(file)
    torch.save({"a": torch.zeros(10**7)}, tmp_path / "whole.pth")
    with zipfile.ZipFile(tmp_path / "whole.pth") as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(ValueError, match=r"old\.pth is no checkpoint of torch: it would unpack to"):
        weights.read_checkpoint(file)
    torch.save({"a": torch.ones(1).expand(3, 4), "b": one, "c": one}, file)  # a few ties and repetitions are usual
    assert weights.read_checkpoint(file)["a"].tolist() == [[1.0] * 4] * 3


def test_values_that_no_file_of_weights_has(tmp_path: Path) -> None:
    quantized = torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.quint8)
    kinds = {
        "meta": (torch.empty(2, device="meta"), "a meta tensor"),
        "quantized": (quantized, "quantized"),
        "complex": (torch.zeros(2, dtype=torch.complex128), "complex128"),
    }
    for name, (tensor, what) in kinds.items():
        torch.save({"good": torch.ones(1), name: tensor}, tmp_path / "old.pth")
        with pytest.raises(ValueError, match=rf"old\.pth holds what is no dense tensor with a name: {name} \({what}"):
            weights.read_checkpoint(tmp_path / "old.pth")
    torch.save({"a": torch.tensor([1 + 2j]).conj(), "b": torch.tensor([1 + 2j]).conj().imag}, tmp_path / "old.pth")
    weights.save_tensors(weights.read_checkpoint(tmp_path / "old.pth"), tmp_path / "new.safetensors")
    assert weights.load_tensors(tmp_path / "new.safetensors")["a"].tolist() == [1 - 2j]
    assert weights.load_tensors(tmp_path / "new.safetensors")["b"].tolist() == [-2.0]


def test_dictionaries_that_hold_themselves_have_an_end(tmp_path: Path) -> None:
    loop: dict[str, Any] = {"epoch": 3}
    loop["model"] = loop
    torch.save(loop, tmp_path / "loop.pth")
    names = ("state_dict", "model", "net", "params", "module", "network", "ema", "model_ema")
    many: dict[str, Any] = {"epoch": 3}
    for _ in range(30):
        many = dict.fromkeys(names, many)
    torch.save(many, tmp_path / "many.pth")
    for name in ("loop", "many"):
        with pytest.raises(ValueError, match=name) as error:
            weights.read_checkpoint(tmp_path / f"{name}.pth")
        assert "recursion" not in str(error.value)


def test_names_of_a_file_do_not_steer_the_terminal_or_fill_it(tmp_path: Path) -> None:
    names = [f"layer.{number}.\x1b[2J\x07\u202e\n" + "w" * 300 for number in range(1000)]
    torch.save({name: [1] for name in names}, tmp_path / "old.pth")
    torch.save({"a": torch.ones(1), "module.a": torch.ones(1)}, tmp_path / "two.pth")
    with pytest.raises(ValueError, match=r"layer\.0\.\\x1b\[2J\\x07\\u202e\\nww.*and 968 more$") as error:
        weights.read_checkpoint(tmp_path / "old.pth")
    assert len(str(error.value)) < 8000
    with pytest.raises(ValueError, match="and 968 more") as error:
        weights.check_tensors({name: torch.ones(1) for name in names}, {"b": torch.ones(1)}, "it")
    assert len(str(error.value)) < 8000
    assert str(error.value).isprintable()
