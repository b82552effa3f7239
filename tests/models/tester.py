"""One tester for every model: a family's test file subclasses it."""

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from plasm import weights


class BaseModelTester:
    """What every registered model promises. Subclasses name the models and how small a clip will do."""

    models: tuple[str, ...]
    inductor_models: tuple[str, ...] = ()
    size: tuple[int, int] = (16, 16)
    bf16_tolerance: float = 0.05
    """Of bf16 autocast against fp32: the root mean square of the difference, over that of the output."""

    @pytest.fixture
    def model(self, name: str) -> nn.Module:
        torch.manual_seed(0)
        return timm.create_model(name)

    def clip(self, model: nn.Module, batch: int = 2, size: tuple[int, int] | None = None) -> Tensor:
        shape = (batch, model.in_frames, model.in_chans, *(size or self.size))
        return torch.rand(shape, generator=torch.Generator().manual_seed(1))

    def out_shape(self, model: nn.Module, batch: int = 2, size: tuple[int, int] | None = None) -> tuple[int, ...]:
        return (batch, model.out_frames, model.in_chans, *(size or self.size))

    def test_forward(self, model: nn.Module) -> None:
        out = model(self.clip(model))
        assert out.shape == self.out_shape(model)
        assert torch.isfinite(out).all()

    def test_clips_do_not_see_each_other(self, model: nn.Module) -> None:
        clip = self.clip(model)
        torch.testing.assert_close(model(clip)[1:], model(clip[1:]), atol=1e-4, rtol=1e-4)

    def test_backward_reaches_every_parameter(self, model: nn.Module) -> None:
        model(self.clip(model)).square().mean().backward()
        for key, parameter in model.named_parameters():
            assert parameter.grad is not None, key
            assert torch.isfinite(parameter.grad).all(), key
            # A bias before a GroupNorm moves whole groups only by the difference between its channels.
            assert parameter.grad.abs().max() > 0, key

    def test_train_and_eval_agree(self, model: nn.Module) -> None:
        clip = self.clip(model)
        assert model.training
        torch.testing.assert_close(model(clip), model.eval()(clip))

    def test_save_and_load_strictly(self, name: str, model: nn.Module, tmp_path: Path) -> None:
        save_file(model.state_dict(), tmp_path / "w.safetensors")
        torch.manual_seed(1)
        other = timm.create_model(name)
        assert not torch.equal(other(self.clip(model)), model(self.clip(model)))
        other.load_state_dict(load_file(tmp_path / "w.safetensors"), strict=True)
        torch.testing.assert_close(other(self.clip(model)), model(self.clip(model)), rtol=0, atol=0)

    def test_checkpoint_path_and_local_dir(self, name: str, model: nn.Module, tmp_path: Path) -> None:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        weights.save_pretrained(model, tmp_path / "folder")
        for loaded in (
            timm.create_model(f"local-dir:{tmp_path / 'folder'}", pretrained=True),
            timm.create_model(name, checkpoint_path=str(tmp_path / "folder" / "model.safetensors")),
        ):
            for key, value in model.state_dict().items():
                assert torch.equal(loaded.state_dict()[key], value), key

    def test_same_seed_same_model(self, name: str, model: nn.Module) -> None:
        torch.manual_seed(0)
        again = timm.create_model(name)
        assert torch.equal(again(self.clip(model)), model(self.clip(model)))

    def test_compile(self, name: str, model: nn.Module) -> None:
        # torch 2.6's inductor fails on a CPU inside its own tiling (a truth value of a symbolic relation).
        inductor = name in self.inductor_models and not torch.__version__.startswith("2.6")
        backend = "inductor" if inductor else "aot_eager"
        clip = self.clip(model)
        compiled = torch.compile(model, fullgraph=True, backend=backend)
        out = compiled(clip)
        torch.testing.assert_close(out, model(clip), atol=1e-3, rtol=1e-3)
        out.sum().backward()
        assert all(p.grad is not None for p in model.parameters())

    def test_export_of_any_batch_and_size(self, model: nn.Module) -> None:
        model.eval()
        multiple = model.encoder.reduction
        batch, height, width = (torch.export.Dim(name, min=2, max=64) for name in ("batch", "h", "w"))
        dynamic = {"clip": {0: batch, 3: multiple * height, 4: multiple * width}}
        program = torch.export.export(model, (self.clip(model),), dynamic_shapes=dynamic)
        for count, size in ((2, (2, 3)), (3, (5, 4))):
            clip = self.clip(model, count, (size[0] * multiple, size[1] * multiple))
            torch.testing.assert_close(program.module()(clip), model(clip), atol=1e-4, rtol=1e-4)

    def test_channels_last(self, model: nn.Module) -> None:
        clip = self.clip(model)
        expected = model(clip)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        torch.testing.assert_close(model(clip), expected, atol=1e-3, rtol=1e-3)

    def test_bf16_autocast(self, model: nn.Module) -> None:
        clip = self.clip(model)
        expected = model(clip)
        with torch.autocast("cpu", torch.bfloat16):
            out = model(clip).float()
        assert (out - expected).square().mean().sqrt() < self.bf16_tolerance * expected.square().mean().sqrt()

    @pytest.mark.parametrize("size", [(17, 23), (10, 9)])
    def test_odd_sizes(self, model: nn.Module, size: tuple[int, int]) -> None:
        clip = self.clip(model, size=size)
        assert model(clip).shape == self.out_shape(model, size=size)
        height, width = size
        multiple = model.encoder.reduction
        padded = nn.functional.pad(clip, (0, -width % multiple, 0, -height % multiple))
        torch.testing.assert_close(model(padded)[..., :height, :width], model(clip), atol=1e-5, rtol=1e-5)

    def test_wrong_shapes_are_errors_that_name_the_shape_wanted(self, model: nn.Module) -> None:
        clip = self.clip(model)
        wanted = rf"\(B, {model.in_frames}, {model.in_chans}, H, W\)"
        for wrong in (clip[0], clip[:, 1:], clip.repeat(1, 1, 2, 1, 1)):
            with pytest.raises(ValueError, match=wanted):
                model(wrong)

    def test_in_chans(self, name: str) -> None:
        model = timm.create_model(name, in_chans=4)
        assert model(self.clip(model)).shape == self.out_shape(model)

    def test_predict_any_horizon(self, model: nn.Module) -> None:
        clip, frames = self.clip(model), model.out_frames
        once = model(clip).detach()
        assert torch.equal(model.predict(clip), once)
        assert torch.equal(model.predict(clip, 1), once[:, :1])
        longer = model.predict(clip, 2 * frames + 1)
        assert longer.shape[1] == 2 * frames + 1
        assert not longer.requires_grad
        window = torch.cat([clip, once], 1)[:, -model.in_frames :]
        torch.testing.assert_close(longer[:, frames : 2 * frames], model(window).detach())

    def test_grad_checkpointing_changes_no_gradient(self, model: nn.Module) -> None:
        clip, other = self.clip(model), copy.deepcopy(model)
        other.set_grad_checkpointing()
        calls: list[int] = []
        handles = [m.register_forward_pre_hook(lambda *_: calls.append(1)) for m in self.blocks(other)]
        for net in (model, other):
            net(clip).square().mean().backward()
        assert len(calls) == 2 * len(handles)  # each block ran again in the backward pass
        for (key, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad, msg=key)

    def blocks(self, model: nn.Module) -> Iterator[nn.Module]:
        """The modules that checkpointing runs twice."""
        raise NotImplementedError

    def test_group_matcher_covers_every_parameter(self, model: nn.Module) -> None:
        for coarse in (False, True):
            groups = timm.models.group_parameters(model, model.group_matcher(coarse))
            names = [name for group in groups.values() for name in group]
            assert sorted(names) == sorted(name for name, _ in model.named_parameters())
            assert len(groups) > 2

    def test_features_have_the_shapes_they_declare(self, name: str, model: nn.Module) -> None:
        clip = self.clip(model)
        _, features = model.forward_intermediates(clip)
        assert len(features) == len(model.feature_info)
        for feature, info in zip(features, model.feature_info, strict=True):
            assert feature.shape[1] == info["num_chs"] == model.num_features
            assert feature.shape[2:] == tuple(side // info["reduction"] for side in self.size)
            model.get_submodule(info["module"])
        torch.manual_seed(0)
        backbone = timm.create_model(name, features_only=True)
        for feature, other in zip(features, backbone(clip), strict=True):
            torch.testing.assert_close(feature, other)

    def test_device_and_dtype_arguments(self, name: str) -> None:
        assert all(p.is_meta for p in timm.create_model(name, device="meta").parameters())
        assert all(p.dtype == torch.float64 for p in timm.create_model(name, dtype=torch.float64).parameters())
