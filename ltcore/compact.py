"""The physically smaller network of a mask of channels: real layers of the channels that stay, exact to the masked network.

A batch norm between two layers gets narrower, as do both layers. One that reads a stream (pre-activation ResNets) selects its channels
first; one that adds to a stream (shortcuts) writes its channels into zeros. So streams keep their width, and nothing is approximated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ltcore.channels import Link, links, sides

Channels = Mapping[str, Tensor]  # {"<norm>.weight": (C,) bool}
STATISTICS = ("weight", "bias", "running_mean", "running_var")


class SelectNorm(nn.BatchNorm2d):
    """Batch norm of some channels of a stream: (B, C, H, W) -> (B, kept, H, W)."""

    def __init__(self, keep: Tensor, **options: Any):
        super().__init__(int(keep.sum()), **options)
        self.register_buffer("index", keep.nonzero().squeeze(1))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.index_select(1, self.index))


class ScatterNorm(nn.BatchNorm2d):
    """Batch norm whose channels are some of a stream's, the others 0: (B, kept, H, W) -> (B, C, H, W)."""

    def __init__(self, keep: Tensor, **options: Any):
        super().__init__(int(keep.sum()), **options)
        self.width = len(keep)
        self.register_buffer("index", keep.nonzero().squeeze(1))

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        return out.new_zeros(out.shape[0], self.width, *out.shape[2:]).index_add(1, self.index, out)


def smaller(family: Callable[..., nn.Module], channels: Channels) -> Callable[..., nn.Module]:
    """A family whose members have only the channels that stay."""

    def build(input_shape: Sequence[int], classes: int, **options: Any) -> nn.Module:
        return narrow(family(input_shape, classes, **options), channels)

    return build


def narrow(module: nn.Module, channels: Channels) -> nn.Module:
    """Replaces the module's layers by narrower ones with weights of their own, in place and in order."""
    rows, columns = sides(module, channels)
    for name, layer in list(module.named_modules()):
        if name in rows or name in columns:
            module.set_submodule(name, _layer(layer, rows.get(name), columns.get(name)))
        elif f"{name}.weight" in channels:
            module.set_submodule(name, _norm(layer, links(module)[name], channels[f"{name}.weight"]))
    return module


def _layer(layer: nn.Module, rows: Tensor | None, columns: Tensor | None) -> nn.Module:
    if isinstance(layer, nn.Linear):
        inputs, outputs = _count(columns, layer.in_features), _count(rows, layer.out_features)
        return nn.Linear(inputs, outputs, layer.bias is not None)
    if not isinstance(layer, nn.Conv2d) or layer.groups != 1:
        raise ValueError(f"a {type(layer).__name__} can't be made narrower (only nn.Linear and nn.Conv2d without groups)")
    inputs, outputs = _count(columns, layer.in_channels), _count(rows, layer.out_channels)
    return nn.Conv2d(inputs, outputs, layer.kernel_size, layer.stride, layer.padding, layer.dilation, bias=layer.bias is not None)


def _count(keep: Tensor | None, whole: int) -> int:
    return whole if keep is None else int(keep.sum())


def _norm(layer: nn.Module, link: Link, keep: Tensor) -> nn.Module:
    options = {"eps": layer.eps, "momentum": layer.momentum}
    if link.producer is None:
        return SelectNorm(keep, **options)
    return nn.BatchNorm2d(int(keep.sum()), **options) if link.consumers else ScatterNorm(keep, **options)


def shrink(module: nn.Module, state: Mapping[str, Tensor], channels: Channels) -> dict[str, Tensor]:
    """The state of the smaller network that holds what stays of a whole network's ``state``.

    Args:
        module: the whole network, for its links. state: its parameters and buffers.
    """
    out, (rows, columns) = dict(state), sides(module, channels)
    for name, keep in rows.items():
        out |= {f"{name}.{p}": out[f"{name}.{p}"][keep] for p in ("weight", "bias") if f"{name}.{p}" in out}
    for name, keep in columns.items():
        out[f"{name}.weight"] = out[f"{name}.weight"][:, keep]
    for scale, keep in channels.items():
        norm = scale.removesuffix(".weight")
        out |= {f"{norm}.{p}": state[f"{norm}.{p}"][keep] for p in STATISTICS}
        link = links(module)[norm]
        if link.producer is None or not link.consumers:
            out[f"{norm}.index"] = keep.nonzero().squeeze(1)
    return {name: t.contiguous() for name, t in out.items()}


def kept(channels: Channels) -> dict[str, int]:
    """Scale -> number of channels that stay."""
    return {name: int(torch.count_nonzero(keep)) for name, keep in channels.items()}
