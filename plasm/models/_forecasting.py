"""One state of torch for forecasts: eval mode, no gradient, no autocast, float32."""

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_AUTOCAST = ("cpu", "cuda", "xpu", "mps", "hpu", "xla")


@contextmanager
def forecasting(*models: nn.Module) -> Iterator[None]:
    """A context in which a forecast depends on the model and the clip alone; what was, is restored at the end.

    Models are in eval mode; there is no gradient, no inference mode, no autocast and no default device, and the default
    dtype is float32.

    Args:
        *models: That forecast. Of each, every module's own mode is restored.
    """
    with ExitStack() as stack:
        # What is made in inference mode could not be trained on or exported afterwards.
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        for kind in _AUTOCAST:
            if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        # By what is made: torch 2.6 does not tell a device that a context sets.
        if torch.empty(0).device.type != "cpu":
            stack.enter_context(torch.device("cpu"))
        # Both are shared by all threads: what is right already is not touched.
        if (dtype := torch.get_default_dtype()) is not torch.float32:
            torch.set_default_dtype(torch.float32)
            stack.callback(torch.set_default_dtype, dtype)
        for model in models:
            if any(module.training for module in model.modules()):
                stack.callback(_restore, model, [(module, module.training) for module in model.modules()])
                _set_mode(model, False)
        yield


def forecasts(
    method: Callable[Concatenate[Model, Arguments], Result],
) -> Callable[Concatenate[Model, Arguments], Result]:
    """A method of a model that runs as ``forecasting``; inside a graph, only without gradient."""

    @functools.wraps(method)
    def run(self: Model, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        if torch.compiler.is_compiling():
            with torch.no_grad():
                return method(self, *args, **kwargs)
        with forecasting(self):
            return method(self, *args, **kwargs)

    return run


def _set_mode(model: nn.Module, training: bool) -> None:
    with suppress(NotImplementedError):  # A program of torch.export has one mode.
        model.train(training)


def _restore(model: nn.Module, modes: list[tuple[nn.Module, bool]]) -> None:
    # A model may do more than note its mode, and some of its parts may have had another.
    _set_mode(model, modes[0][1])
    for module, training in modes:
        module.training = training
