"""One tester for every model: a family's test file subclasses it. See "A family of models" in docs/own.md."""

import copy
import importlib.util
import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from plasm import weights
from plasm.exporting import Engine, export, load_exported
from plasm.models import ModelInterface, create_task, family_of
from plasm.tasks import Prediction

__all__ = ["PROMISES", "ModelTester"]

PROMISES = {
    "train_equals_eval": "a module computes the same in train and in eval mode (dropout and BatchNorm do not)",
    "every_gradient": "the backward pass reaches every parameter",
    "any_size": "clips may be of any height and width",
    "feeds_back": "predict goes beyond out_frames by feeding frames back",
    "grad_checkpointing": "blocks can be run again in the backward pass",
    "features": "forward_intermediates and features_only",
    "export": "torch.export with a dynamic batch, and dynamic height and width where one graph takes any",
    "compile": "torch.compile of the whole graph",
    "other_channels": "in_chans is an argument",
    "out_chans": "out_chans is an argument",
    "layers": "group_matcher names the layers of the parameters",
}
"""What a model may lack, if its family says why: see ``ModelTester.not_promised``."""


def _assert_close(out: Tensor, expected: Tensor, tolerance: float) -> None:
    """Within a part of the largest value: the first forecasts of some are near zero."""
    torch.testing.assert_close(out, expected, atol=tolerance * expected.abs().max().item(), rtol=tolerance)


class Adapter(nn.Module):
    """What stands for an adapter: no scale, which a norm or a cosine takes out again."""

    def forward(self, x: Tensor) -> Tensor:
        return x + x.roll(1, 1).tanh()


class ModelTester:
    """What every model of a family promises, as tests for pytest. A subclass names the models.

    A family that cannot keep one of PROMISES says so by ``not_promised``, with the reason: the tests of it are skipped,
    and the rest runs in eval mode where training mode is what differs.

    Attributes:
        models: Names of constructors, or of cases that ``create`` knows: each test runs for each.
        parameters: How many parameters the model of each constructor of the family has.
        graph_models: Those that are compiled and exported, all by default: of constructors that differ in sizes alone,
            one or two will do.
        inductor_models: Those that inductor compiles, for a minute each; the others by ``compile_backend``.
        compile_backend: "aot_eager", which traces the backward pass too, or for a family of many "eager".
        arguments: For the name of a model, what its constructor is given: a small configuration.
        references: Names of safetensors files of other people's code: "input", its "output", the weights, and in the
            metadata its "config", of which ``load_reference`` makes the model. ("step": only every so many pixels of
            the output are there.)
        reference_folders: Where they are looked for; all that are found are compared.
        onnx_models: Those that are exported to ONNX, all by default; the others as torch's own format, which is faster.
        openvino_models: Those of ``onnx_models`` whose files are compared in OpenVINO, too: one of a family at least.
        export_arguments: What makes a model smaller still for graphs, and for weights that are adapted.
        size: H and W of the clips.
        padding: How the model pads H and W, by the name that ``torch.nn.functional.pad`` has for it.
        bf16_tolerance: Of bf16 autocast against fp32: the root mean square of the difference, over that of the output.
    """

    models: tuple[str, ...]
    parameters: Mapping[str, int] = {}
    graph_models: tuple[str, ...] | None = None
    inductor_models: tuple[str, ...] = ()
    compile_backend: str = "aot_eager"
    arguments: Mapping[str, Mapping[str, Any]] = {}
    references: tuple[str, ...] = ()
    reference_folders: tuple[Path, ...] = ()
    onnx_models: tuple[str, ...] | None = None
    openvino_models: tuple[str, ...] = ()
    export_arguments: Mapping[str, Any] = {}
    size: tuple[int, int] = (16, 16)
    padding: str = "constant"
    bf16_tolerance: float = 0.05

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """pytest's: run the tests for every model.

        Raises:
            ValueError: If there is none, or an attribute names others: tests would be skipped, and none would fail.
        """
        if not self.models:
            raise ValueError(f"{type(self).__name__} has no models to test")
        for attribute in ("graph_models", "inductor_models", "onnx_models", "openvino_models"):
            if unknown := set(getattr(self, attribute) or ()).difference(self.models):
                raise ValueError(f"{attribute} of {type(self).__name__} has {sorted(unknown)}, not of its models")
        if "name" in metafunc.fixturenames:
            metafunc.parametrize("name", self.models)
        if "reference" in metafunc.fixturenames:
            none = pytest.param("", marks=pytest.mark.skip("nobody else's code of this family has stored outputs"))
            metafunc.parametrize("reference", self.references or [none])

    def create(self, name: str, **kwargs: Any) -> Any:
        """Make a model of ``models``; a family whose cases are not constructors overrides it."""
        return timm.create_model(name, **{**self.arguments.get(name, {}), **kwargs})

    def not_promised(self, name: str) -> dict[str, str]:
        """Which of PROMISES a model does not make, and why: by default, what it says itself that it lacks."""
        model = self.create(name, device="meta")
        lacks = {
            "features": (not model.feature_info, "it lists no feature_info"),
            "grad_checkpointing": (
                not any("grad_checkpointing" in vars(part) for part in model.modules()),
                "no part of it has grad_checkpointing",
            ),
            "layers": (ModelInterface.of(model).group_matcher is None, "it has no group_matcher"),
            "other_channels": (
                "in_chans" not in inspect.signature(type(model)).parameters,
                "it has no argument for it",
            ),
            "out_chans": ("out_chans" not in inspect.signature(type(model)).parameters, "what comes out goes in"),
        }
        return {promise: reason for promise, (lacking, reason) in lacks.items() if lacking}

    def load_reference(self, config: dict[str, Any], state_dict: dict[str, Tensor]) -> Any:
        """The model that a reference file describes, with its weights."""
        raise NotImplementedError

    def require(self, name: str, promise: str) -> None:
        """Skip the test of a promise that the model does not make."""
        exceptions = self.not_promised(name)
        assert PROMISES.keys() >= exceptions.keys() | {promise}
        if promise in exceptions:
            pytest.skip(f"{name}: not promised that {PROMISES[promise]}: {exceptions[promise]}")

    @pytest.fixture
    def model(self, name: str) -> Any:
        torch.manual_seed(0)
        return self.create(name).train("train_equals_eval" not in self.not_promised(name))

    def test_every_constructor_has_the_parameters_it_had(self) -> None:
        if not self.parameters:
            pytest.skip("the numbers of parameters are not given")
        families = {id(family): family for name in self.parameters if (family := family_of(name))}
        names = [name for family in families.values() for name in family.constructors]
        models = {name: timm.create_model(name, device="meta") for name in names}
        assert {name: sum(p.numel() for p in model.parameters()) for name, model in models.items()} == self.parameters

    def test_matches_reference(self, reference: str) -> None:
        """Within 1e-5 of the largest value of what the other code put out."""
        files = [folder / reference for folder in self.reference_folders if (folder / reference).is_file()]
        if not files:
            pytest.skip(f"no {reference} in {' or '.join(map(str, self.reference_folders))}")
        for file in files:
            with safe_open(file, "pt") as stored:
                config, step = json.loads(stored.metadata()["config"]), int(stored.metadata().get("step", 1))
                tensors = {key: stored.get_tensor(key).float() for key in stored.keys()}  # noqa: SIM118
            clip, expected = tensors.pop("input"), tensors.pop("output")
            model = self.load_reference(config, tensors).eval()
            out = model.predict(clip, expected.shape[1])[..., ::step, ::step]
            torch.testing.assert_close(out, expected, rtol=0, atol=1e-5 * expected.abs().max().item())

    def clip(self, model: Any, batch: int = 2, size: tuple[int, int] | None = None) -> Tensor:
        shape = (batch, model.in_frames, model.in_chans, *(size or self.size))
        return torch.rand(shape, generator=torch.Generator().manual_seed(1))

    def out_shape(self, model: Any, batch: int = 2, size: tuple[int, int] | None = None) -> tuple[int, ...]:
        return (batch, model.out_frames, model.out_chans, *(size or self.size))

    def test_forward(self, model: Any) -> None:
        out = model(self.clip(model))
        assert out.shape == self.out_shape(model)
        assert torch.isfinite(out).all()

    def test_clips_do_not_see_each_other(self, model: Any) -> None:
        clip = self.clip(model)
        out = model(clip)
        for own in (slice(1), slice(1, 2)):
            _assert_close(out[own], model(clip[own]), 1e-4)

    def test_backward_reaches_every_parameter(self, name: str, model: Any) -> None:
        self.require(name, "every_gradient")
        model(self.clip(model)).square().mean().backward()
        for key, parameter in model.named_parameters():
            assert parameter.grad is not None, key
            assert torch.isfinite(parameter.grad).all(), key
            # A bias before a GroupNorm moves whole groups only by the difference between its channels.
            assert parameter.grad.abs().max() > 0, key

    def test_train_and_eval_agree(self, name: str, model: Any) -> None:
        self.require(name, "train_equals_eval")
        clip = self.clip(model)
        assert model.training
        torch.testing.assert_close(model(clip), model.eval()(clip))

    def test_save_and_load_strictly(self, name: str, model: Any, tmp_path: Path) -> None:
        save_file(model.state_dict(), tmp_path / "w.safetensors")
        torch.manual_seed(1)
        other = self.create(name).train(model.training)
        assert not torch.equal(other(self.clip(model)), model(self.clip(model)))
        other.load_state_dict(load_file(tmp_path / "w.safetensors"), strict=True)
        torch.testing.assert_close(other(self.clip(model)), model(self.clip(model)), rtol=0, atol=0)

    def test_checkpoint_path_and_local_dir(self, name: str, model: Any, tmp_path: Path) -> None:
        model = model.to(memory_format=torch.channels_last)
        weights.save_pretrained(model, tmp_path / "folder")
        for loaded in (
            timm.create_model(f"local-dir:{tmp_path / 'folder'}", pretrained=True),
            self.create(name, checkpoint_path=str(tmp_path / "folder" / "model.safetensors")),
        ):
            for key, value in model.state_dict().items():
                assert torch.equal(loaded.state_dict()[key], value), key

    def test_same_seed_same_model(self, name: str, model: Any) -> None:
        torch.manual_seed(0)
        again = self.create(name).train(model.training)
        assert torch.equal(again(self.clip(model)), model(self.clip(model)))

    def make_for_a_graph(self, name: str) -> Any:
        """A small model to compile or export; of the rest of ``models`` the test is skipped."""
        if self.graph_models is not None and name not in self.graph_models:
            pytest.skip(f"{name} has the graph of {' or '.join(self.graph_models)} in another size")
        torch.manual_seed(0)
        return self.create(name, **self.export_arguments)

    def test_compile(self, name: str) -> None:
        self.require(name, "compile")
        model = self.make_for_a_graph(name).train("train_equals_eval" not in self.not_promised(name))
        # torch 2.6's inductor fails on a CPU inside its own tiling (a truth value of a symbolic relation).
        inductor = name in self.inductor_models and not torch.__version__.startswith("2.6")
        backend = "inductor" if inductor else self.compile_backend
        # Models of one class share its limit of compiled graphs.
        torch.compiler.reset()
        clip = self.clip(model)
        compiled = torch.compile(model, fullgraph=True, backend=backend)
        out = compiled(clip)  # type: ignore[no-untyped-call]
        expected = model(clip)
        _assert_close(out, expected, 1e-3)
        reached = []
        for frames in (out, expected):
            model.zero_grad(set_to_none=True)
            frames.sum().backward()
            reached.append([parameter for parameter, p in model.named_parameters() if p.grad is not None])
        assert reached[0] == reached[1]

    def test_export_of_any_batch_and_size(self, name: str, tmp_path: Path) -> None:
        """What is written was compared with eager for batches of 1 and 3, and two sizes where a graph takes any."""
        self.require(name, "export")
        model = self.make_for_a_graph(name)
        onnx = self.onnx_models is None or name in self.onnx_models
        onnx &= all(importlib.util.find_spec(package) is not None for package in ("onnxscript", "onnxruntime"))
        # torch 2.6 cannot write every layer to ONNX at a dynamic size: BatchNorm is one.
        onnx &= not torch.__version__.startswith("2.6")
        file = tmp_path / ("model.onnx" if onnx else "model.pt2")
        engines: list[Engine] = ["onnxruntime"]
        if name in self.openvino_models and importlib.util.find_spec("openvino") is not None:
            engines.append("openvino")
        done = export(model, file, file.suffix[1:], size=self.size, dynamic_size=model.dynamic_size, engines=engines)
        assert done.range > 0
        clip = self.clip(model, 2)
        torch.testing.assert_close(load_exported(file)(clip), model.eval()(clip), atol=2e-3 * done.range, rtol=0)

    def test_channels_last(self, model: Any) -> None:
        clip = self.clip(model)
        expected = model(clip)
        model.to(memory_format=torch.channels_last)
        _assert_close(model(clip), expected, 1e-3)

    def test_bf16_autocast(self, model: Any) -> None:
        clip = self.clip(model)
        expected = model(clip)
        with torch.autocast("cpu", torch.bfloat16):
            out = model(clip).float()
        assert (out - expected).square().mean().sqrt() < self.bf16_tolerance * expected.square().mean().sqrt()

    @pytest.mark.parametrize("size", [(17, 23), (10, 9)])
    def test_odd_sizes(self, name: str, model: Any, size: tuple[int, int]) -> None:
        self.require(name, "any_size")
        clip = self.clip(model, size=size)
        assert model(clip).shape == self.out_shape(model, size=size)
        height, width = size
        multiple = model.size_multiple
        padding = (0, -width % multiple, 0, -height % multiple)
        padded = nn.functional.pad(clip.flatten(1, 2), padding, mode=self.padding).unflatten(1, clip.shape[1:3])
        _assert_close(model(padded)[..., :height, :width], model(clip), 1e-5)

    def test_wrong_shapes_are_errors_that_name_the_shape_wanted(self, model: Any) -> None:
        clip = self.clip(model)
        wanted = rf"\(B, {model.in_frames}, {model.in_chans}, H, W\)"
        for wrong in (clip[0], clip[:, 1:], clip.repeat(1, 1, 2, 1, 1)):
            with pytest.raises(ValueError, match=wanted):
                model(wrong)

    def test_another_number_of_input_frames_is_an_error_that_names_the_argument(self, model: Any) -> None:
        if "in_frames" not in inspect.signature(type(model)).parameters:
            pytest.skip(f"{type(model).__name__} has no argument in_frames")
        shorter = self.clip(model)[:, 1:]
        with pytest.raises(ValueError, match=rf"make the model with in_frames={model.in_frames - 1}: create_model"):
            model.predict(shorter)

    def test_weights_of_other_channels_are_adapted_or_not_offered(self, name: str, tmp_path: Path) -> None:
        """A gray clip in three channels is forecast as it was in one; and back in one, too."""
        if "in_chans" not in inspect.signature(type(self.create(name, device="meta"))).parameters:
            pytest.skip(f"{name} has no argument in_chans")
        torch.manual_seed(0)
        gray = self.create(name, **{**self.export_arguments, "in_chans": 1}).eval()
        for parameter in gray.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)  # no bias is zero, and no scale one
        clip = self.clip(gray)
        with pytest.raises(ValueError, match="make the model with in_chans=3: create_model") as error:
            gray(clip.repeat(1, 1, 3, 1, 1))
        weights.save_pretrained(gray, tmp_path / "gray")
        if "adapts published weights to it" not in str(error.value):
            with pytest.raises(ValueError, match="does not fit the model"):
                timm.create_model(f"local-dir:{tmp_path / 'gray'}", pretrained=True, in_chans=3)
            return
        color = timm.create_model(f"local-dir:{tmp_path / 'gray'}", pretrained=True, in_chans=3).eval()
        expected = gray(clip).detach()
        close = {"atol": 1e-4 * expected.abs().max().item(), "rtol": 0}
        torch.testing.assert_close(color(clip.repeat(1, 1, 3, 1, 1)), expected.repeat(1, 1, 3, 1, 1), **close)
        weights.save_pretrained(color, tmp_path / "color")
        again = timm.create_model(f"local-dir:{tmp_path / 'color'}", pretrained=True, in_chans=1).eval()
        torch.testing.assert_close(again(clip), expected, **close)

    def test_weights_of_other_frame_counts_are_adapted_or_not_offered(self, name: str, tmp_path: Path) -> None:
        model = self.create(name, **self.export_arguments)
        if "in_frames" not in inspect.signature(type(model)).parameters:
            pytest.skip(f"{name} has no argument in_frames")
        weights.save_pretrained(model, tmp_path)
        frames, clip = 2 * model.in_frames, self.clip(model)
        with pytest.raises(ValueError, match=f"make the model with in_frames={frames}: create_model") as error:
            model(torch.cat([clip, clip], 1))
        if "adapts published weights to it" in str(error.value):
            timm.create_model(f"local-dir:{tmp_path}", pretrained=True, in_frames=frames)
        else:
            with pytest.raises(ValueError, match="does not fit the model"):
                timm.create_model(f"local-dir:{tmp_path}", pretrained=True, in_frames=frames)

    def test_in_chans(self, name: str) -> None:
        self.require(name, "other_channels")
        model = self.create(name, in_chans=4).eval()
        assert model.out_chans == 4
        assert model(self.clip(model)).shape == self.out_shape(model)

    def test_out_chans(self, name: str) -> None:
        self.require(name, "other_channels")
        self.require(name, "out_chans")
        model = self.create(name, in_chans=2, out_chans=3).eval()
        assert model(self.clip(model)).shape[2] == 3
        assert model.predict(self.clip(model), 1).shape[1:3] == (1, 3)
        with pytest.raises(
            ValueError, match=rf"3 channel\(s\) cannot be fed back .* out_frames={model.out_frames + 1}"
        ):
            model.predict(self.clip(model), model.out_frames + 1)

    def test_predict_any_horizon(self, name: str, model: Any) -> None:
        self.require(name, "feeds_back")
        model.eval()
        clip, frames = self.clip(model), model.out_frames
        once = model(clip).detach()
        assert torch.equal(model.predict(clip), once)
        assert torch.equal(model.predict(clip, 1), once[:, :1])
        longer = model.predict(clip, 2 * frames + 1)
        assert longer.shape[1] == 2 * frames + 1
        assert not longer.requires_grad
        window = torch.cat([clip, once], 1)[:, -model.in_frames :]
        torch.testing.assert_close(longer[:, frames : 2 * frames], model(window).detach())

    def test_grad_checkpointing_changes_no_gradient(self, name: str, model: Any) -> None:
        self.require(name, "grad_checkpointing")
        clip, other = self.clip(model), copy.deepcopy(model)
        other.set_grad_checkpointing()
        calls: list[int] = []
        handles = [m.register_forward_pre_hook(lambda *_: calls.append(1)) for m in self.blocks(other)]
        for net in (model, other):
            # Of what is random in training, too.
            torch.manual_seed(0)
            net.train()(clip).square().mean().backward()
        assert len(calls) == 2 * len(handles)  # each block ran again in the backward pass
        for (key, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
            if p.grad is None and "every_gradient" in self.not_promised(name):
                continue
            torch.testing.assert_close(p.grad, q.grad, msg=key)
        # BatchNorm's statistics, too, are of one run.
        for (key, b), c in zip(model.named_buffers(), other.buffers(), strict=True):
            torch.testing.assert_close(b, c, msg=key)

    def blocks(self, model: Any) -> Iterator[Any]:
        """The modules that checkpointing runs twice, each once in a forward pass."""
        raise NotImplementedError

    def test_group_matcher_covers_every_parameter(self, name: str, model: Any) -> None:
        self.require(name, "layers")
        for coarse in (False, True):
            groups = timm.models.group_parameters(model, model.group_matcher(coarse))
            names = [name for group in groups.values() for name in group]
            assert sorted(names) == sorted(name for name, _ in model.named_parameters())
            assert len(groups) > 2

    def test_group_matcher_follows_the_depth(self, name: str, model: Any) -> None:
        self.require(name, "features")
        self.require(name, "layers")
        layers = timm.models.group_parameters(model, model.group_matcher(), reverse=True)
        blocks = [[layers[key] for key in layers if key.startswith(f"{i['module']}.")] for i in model.feature_info]
        depths = [sorted({*block}) for block in blocks if block]
        assert all(len(depth) == 1 for depth in depths)
        assert depths == sorted(depths)
        assert len(depths) == 1 or depths[0] < depths[-1]
        assert all(layer <= depths[0][0] for key, layer in layers.items() if key.startswith("encoder."))
        assert all(layer >= depths[-1][0] for key, layer in layers.items() if key.startswith("decoder."))

    def test_arguments_of_timms_scripts(self, name: str) -> None:
        given = {"drop_rate": 0.0, "drop_path_rate": 0.0, "img_size": self.size, "num_classes": 7, "global_pool": "avg"}
        model = self.create(name, **given)
        assert model.num_classes == 0
        assert isinstance(model.get_classifier(), nn.Module)
        model.reset_classifier(0)
        with pytest.raises(ValueError, match="no classifier of 10 classes"):
            model.reset_classifier(10)

    def test_features_then_head_are_forward(self, name: str, model: Any) -> None:
        self.require(name, "features")
        clip = self.clip(model.eval(), size=None if "any_size" in self.not_promised(name) else (17, 22))
        features = model.forward_features(clip)
        pooled = model.forward_head(features, pre_logits=True)
        assert pooled.shape == (len(features), model.head_hidden_size)
        assert torch.equal(model.forward_head(features, True), pooled)
        try:
            frames = model.forward_head(features, clip)
        except NotImplementedError as error:
            pytest.skip(f"{name}: {error}")
        torch.testing.assert_close(frames, model(clip))

    def test_pruned_model_gives_the_same_features(self, name: str, model: Any) -> None:
        self.require(name, "features")
        clip = self.clip(model.eval())
        last = len(model.feature_info) // 2
        expected = model.forward_intermediates(clip, [0, last], intermediates_only=True)
        count = sum(p.numel() for p in model.parameters())
        assert list(model.prune_intermediate_layers([0, last])) == [0, last]
        assert sum(p.numel() for p in model.parameters()) < count
        for feature, other in zip(expected, model.forward_intermediates(clip)[1][:: max(last, 1)], strict=True):
            assert torch.equal(feature, other)

    def test_features_have_the_shapes_they_declare(self, name: str, model: Any) -> None:
        self.require(name, "features")
        clip = self.clip(model)
        _, features = model.forward_intermediates(clip)
        assert len(features) == len(model.feature_info) > 0
        assert model.feature_info[-1]["num_chs"] == model.num_features
        for feature, info in zip(features, model.feature_info, strict=True):
            assert feature.shape[1] == info["num_chs"]
            assert feature.shape[2:] == tuple(side // info["reduction"] for side in self.size)
            model.get_submodule(info["module"])
        torch.manual_seed(0)
        backbone = self.create(name, features_only=True).train(model.training)
        outputs = backbone(clip)
        assert len(outputs) == len(features)
        for feature, other in zip(features, outputs, strict=True):
            torch.testing.assert_close(feature, other)
        (last,) = self.create(name, features_only=True, out_indices=(-1,)).train(model.training)(clip)
        assert last.shape == features[-1].shape

    def test_no_clips_and_frames_of_one_pixel(self, name: str, model: Any) -> None:
        model.eval()
        assert model(self.clip(model, 0)).shape == self.out_shape(model, 0)
        if "any_size" not in self.not_promised(name):
            out = model(self.clip(model, 1, (1, 1)))
            assert out.shape == self.out_shape(model, 1, (1, 1))
            assert out.isfinite().all()

    def test_every_module_with_weights_is_called(self, name: str, model: Any) -> None:
        """Hooks, adapters and offloading know of nothing else. What belongs to a loss alone is called in training."""
        called: set[str] = set()
        for key, part in model.named_modules():
            part.register_forward_hook(lambda *_, key=key: called.add(key))
        clip = self.clip(model.eval())
        model(clip)
        family = family_of(name)
        if family and family.task is not Prediction:
            clips = torch.cat([clip, torch.rand(self.out_shape(model))], 1)
            create_task(name, model).train()(clips, torch.arange(len(clip)), 0, 0)
        own = {key for key, part in model.named_modules() if [*part.parameters(False), *part.buffers(False)]}
        assert own <= called, own - called

    def test_an_adapter_in_place_of_a_module_counts(self, model: Any) -> None:
        clip = self.clip(model.eval())
        expected = model(clip)
        leaves = [key for key, part in model.named_modules() if [*part.parameters(False)] and not [*part.children()]]
        # Several of each model: the first, the last, and some between.
        for key in {*leaves[:: max(1, len(leaves) // 4)], leaves[-1]} - {"adapter"}:
            part = model.get_submodule(key)
            model.set_submodule(key, nn.Sequential(part, Adapter()))
            assert not torch.equal(model(clip), expected), key
            model.set_submodule(key, part)

    @pytest.mark.parametrize("way", ["to_empty", "assign", "from_meta"])
    def test_made_on_the_meta_device_it_is_whole_once_loaded(self, name: str, model: Any, way: str) -> None:
        clip = self.clip(model.eval())
        empty = self.create(name).to("meta") if way == "from_meta" else self.create(name, device="meta")
        if way == "to_empty":
            empty.to_empty(device="cpu")
            for tensor in (*empty.parameters(), *empty.buffers()):
                tensor.data.fill_(7)  # whatever was there
        empty.load_state_dict(model.state_dict(), assign=way != "to_empty")
        assert torch.equal(empty.eval()(clip), model(clip))

    @pytest.mark.parametrize("buffers", [False, True])
    def test_accelerate_makes_it_empty_and_offloads_it(self, name: str, model: Any, buffers: bool) -> None:
        accelerate = pytest.importorskip("accelerate")
        clip = self.clip(model.eval())
        expected = model(clip).detach()
        with accelerate.init_empty_weights(include_buffers=buffers):
            empty = self.create(name)
        empty.load_state_dict(model.state_dict(), assign=True)
        assert torch.equal(empty.eval()(clip), expected)
        with torch.no_grad():
            torch.testing.assert_close(accelerate.cpu_offload(empty, "cpu")(clip), expected)

    def test_device_and_dtype_arguments(self, name: str) -> None:
        assert all(p.is_meta for p in self.create(name, device="meta").parameters())
        assert all(p.dtype == torch.float64 for p in self.create(name, dtype=torch.float64).parameters())
