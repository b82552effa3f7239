import platform
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from plasm import cpu
from plasm.devices import choose_device, clear_failures, has_bf16, move


def test_auto_is_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, name in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert choose_device("auto").type == name
    with pytest.raises(ValueError, match="no device 'nonsense' here"):
        choose_device("nonsense")


@pytest.mark.parametrize(("groups", "kernel_size"), [(1, 1), (8, 3), (1, 3)])
def test_weights_have_the_strides_of_channels_last(groups: int, kernel_size: int) -> None:
    """Those of 1x1 and depthwise convolutions, too, which lie as before: kernels are chosen by the strides."""
    conv = nn.Conv2d(8, 8, kernel_size, groups=groups)
    expected = torch.empty_like(conv.weight, memory_format=torch.channels_last).stride()
    assert move(conv, torch.device("cpu")).weight.stride() == expected


def test_on_a_cpu_alone_the_layers_are_the_faster_ones() -> None:
    assert type(move(nn.Conv2d(1, 1, 1), torch.device("cpu"))) is cpu.transform.Conv2d
    assert type(move(nn.Conv2d(1, 1, 1), torch.device("meta"))) is nn.Conv2d


@pytest.mark.parametrize(("avx512", "amx"), [(False, False), (True, False), (False, True)])
def test_a_cpu_without_the_instructions_keeps_to_fp32(avx512: bool, amx: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert has_bf16(torch.device("cpu")) is (avx512 or amx)


def test_of_a_gpu_torch_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    for native in (True, False):
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation, n=native: including_emulation or n
        )
        assert has_bf16(torch.device("cuda")) is native


@pytest.mark.parametrize(
    "fail",
    [
        lambda: torch.empty(10**17),
        lambda: np.empty(10**17),
        lambda: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0")),
        lambda: (_ for _ in ()).throw(RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be")),
        lambda: (_ for _ in ()).throw(MemoryError()),
        # As ONNX Runtime and OpenVINO say it, whose errors are of their own.
        lambda: (_ for _ in ()).throw(type("Fail", (Exception,), {})("Failed to allocate memory for requested buffer")),
        lambda: (_ for _ in ()).throw(RuntimeError("std::bad_alloc")),
    ],
)
def test_a_lack_of_memory_says_what_to_do(fail: Any) -> None:
    with pytest.raises(MemoryError, match=r"^out of memory \([^\n]+\): use less$"), clear_failures("use less"):
        getattr(fail(), "send", lambda _: None)(None)


def test_other_errors_are_left_as_they_are() -> None:
    with pytest.raises(RuntimeError, match=r"^shapes differ$"), clear_failures("use less"):
        raise RuntimeError("shapes differ")
