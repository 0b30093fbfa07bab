"""From a declared model to its first weights, its layers' kinds and sizes."""
from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ltcore import seeds
from ltcore.errors import UsageError, UserError
from ltcore.recipe import Model

State = dict[str, Tensor]  # parameters and buffers by their names in the module
Family = Callable[..., nn.Module]

_KINDS = {nn.Conv1d: "conv", nn.Conv2d: "conv", nn.Conv3d: "conv", nn.Linear: "fc", nn.Embedding: "embedding"}
_RECURRENT = (nn.RNNBase, nn.RNNCellBase)


def _glorot_normal(module: nn.Module) -> None:
    """Gaussian Glorot (Glorot & Bengio 2010) on every weight of a linear or conv layer; their biases 0 (official code of Frankle & Carbin 2019)."""
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            nn.init.xavier_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _kaiming_normal(module: nn.Module) -> None:
    """Kaiming normal (He et al. 2015, fan in, gain √2) on every weight of a linear or conv layer, their biases as the layer draws them;
    scales of batch norm uniform in [0, 1], shifts 0 (open_lth's ``kaiming_normal`` and ``uniform``, as in the code of Chen et al. 2021)."""
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            nn.init.kaiming_normal_(layer.weight)
        elif isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)) and layer.affine:
            nn.init.uniform_(layer.weight)
            nn.init.zeros_(layer.bias)


def _slimming(module: nn.Module, output_sd: float | None = 0.01) -> None:
    """Convolutions N(0, 2 / (kernel × outputs)), batch-norm scales 0.5, the linear layer N(0, 0.01²) where said, no biases
    (official code of You et al. 2020, which is network slimming's; its ResNets leave the linear layer as PyTorch draws it)."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, 0.0, math.sqrt(2 / (math.prod(layer.kernel_size) * layer.out_channels)))
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.constant_(layer.weight, 0.5)
        elif isinstance(layer, nn.Linear) and output_sd is not None:
            nn.init.normal_(layer.weight, 0.0, output_sd)
            nn.init.zeros_(layer.bias)


INITS: dict[str, Callable[[nn.Module], None]] = {
    "glorot-normal": _glorot_normal, "kaiming-normal": _kaiming_normal, "module": lambda module: None, "slimming": _slimming,
    "slimming-resnet": functools.partial(_slimming, output_sd=None),
}  # fmt: skip


def construct(family: Family, model: Model, input_shape: Sequence[int], classes: int) -> nn.Module:
    """Calls a family's constructor; what goes wrong in it is the user's to mend."""
    try:
        module = family(tuple(input_shape), classes, **model.options)
    except (TypeError, ValueError) as error:
        raise UsageError(f"model {model.name!r} can't be built for inputs {tuple(input_shape)} and {classes} classes: {error}") from error
    if not isinstance(module, nn.Module):
        raise UserError(f"model {model.name!r} is a {type(module).__name__}, not an nn.Module")
    return module


def skeleton(family: Family, model: Model, input_shape: Sequence[int], classes: int) -> nn.Module:
    """The module without drawn weights: for shapes, kinds and as a body for functional calls."""
    with seeds.global_stream(0, "skeleton"):
        return construct(family, model, input_shape, classes)


def draw_state(family: Family, model: Model, input_shape: Sequence[int], classes: int, path: Sequence[Any]) -> State:
    """Initial parameters and buffers, float32, drawn from ``stream(*path)``."""
    with seeds.global_stream(*path):
        module = construct(family, model, input_shape, classes)
        INITS[model.init](module)
    return {name: t.detach().clone() for name, t in own_state(module).items()}


def own_state(module: nn.Module) -> State:
    """Parameters and saved buffers by name; tied weights stand under their first name only, as in ``named_parameters``."""
    first = {name for name, _ in (*module.named_parameters(), *module.named_buffers())}
    return {name: t for name, t in module.state_dict().items() if name in first}


def layer_kinds(module: nn.Module) -> dict[str, str]:
    """Weight name -> ``conv``, ``fc``, ``output``, ``embedding`` or ``recurrent``; biases and normalisation have no kind.

    The last linear layer is the output. A module overrides this, name by name, with an attribute ``layer_kinds`` {weight name: kind}
    (our ResNets name their projections ``shortcut`` so).
    """
    kinds = {f"{name}.weight": kind for name, layer in module.named_modules() if (kind := _kind(layer))}
    for name, layer in module.named_modules():
        if isinstance(layer, _RECURRENT):
            kinds |= {f"{name}.{p}": "recurrent" for p, _ in layer.named_parameters(recurse=False) if p.startswith("weight")}
    linear = [name for name, kind in kinds.items() if kind == "fc"]
    kinds |= {linear[-1]: "output"} if linear else {}
    order = [name.removeprefix(".") for name, _ in module.named_parameters()]
    kinds = {name.removeprefix("."): kind for name, kind in kinds.items()} | dict(getattr(module, "layer_kinds", {}))
    return {name: kinds[name] for name in order if name in kinds}


def _kind(layer: nn.Module) -> str | None:
    """By the layer's type, a user's subclass of ``nn.Conv2d`` included."""
    return next((kind for known, kind in _KINDS.items() if isinstance(layer, known)), None)


def layer_sizes(module: nn.Module) -> dict[str, int]:
    """Number of weights of each layer that has a kind, in the order of the module's parameters."""
    parameters = dict(module.named_parameters())
    return {name: parameters[name].numel() for name in layer_kinds(module)}


def split_state(module: nn.Module, state: Mapping[str, Tensor]) -> tuple[State, State]:
    """A state as (trained parameters, the rest: buffers and frozen parameters)."""
    names = {name for name, p in module.named_parameters() if p.requires_grad}
    return {n: t for n, t in state.items() if n in names}, {n: t for n, t in state.items() if n not in names}
