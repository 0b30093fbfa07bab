"""Channels: what a batch-norm scale stands for, which layers it ties together, and a mask of channels as a mask of weights.

A module says by an attribute ``channel_links`` {name of a batch norm: Link} which of its channels can go. A mask of channels is a
:data:`ltcore.masks.Mask` over the scales, {"<norm>.weight": (C,) bool}: pruned channels have scale and shift 0, so that nothing of
them reaches the next layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

KIND = "channel"  # what a recipe's rates call a batch-norm scale
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class Link:
    """The layers around a batch norm.

    Args:
        producer: the convolution that makes its channels and nothing else; None where it reads a stream that others read too.
        consumers: the layers that take its channels (after a ReLU or a pool, which leave 0 at 0) and nothing else; empty where it
            adds to a stream.
    """

    producer: str | None
    consumers: tuple[str, ...] = ()


def links(module: nn.Module) -> Mapping[str, Link]:
    """The module's own account of its channels; empty where it gives none."""
    return getattr(module, "channel_links", {})


def kinds(module: nn.Module) -> dict[str, str]:
    """Scale name -> ``channel``, in the order of the links."""
    return {f"{norm}.weight": KIND for norm in links(module)}


def scales(module: nn.Module) -> list[str]:
    """Names of all batch-norm scales, linked or not."""
    return [f"{name}.weight" for name, layer in module.named_modules() if isinstance(layer, NORMS) and layer.affine]


def sides(module: nn.Module, channels: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Layer -> outputs that stay (bool), and layer -> inputs that stay."""
    rows, columns = {}, {}
    for scale, keep in channels.items():
        link = links(module)[scale.removesuffix(".weight")]
        rows |= {link.producer: keep} if link.producer else {}
        columns |= dict.fromkeys(link.consumers, keep)
    return rows, columns


def expand(module: nn.Module, channels: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The mask of weights that a mask of channels means: scale and shift, the producer's outputs, the consumers' inputs."""
    rows, columns = sides(module, channels)
    parameters = dict(module.named_parameters())
    mask = {scale: keep for scale, keep in channels.items()}
    mask |= {f"{scale.removesuffix('.weight')}.bias": keep for scale, keep in channels.items()}
    for name, keep in rows.items():
        mask |= {f"{name}.{p}": _along(keep, parameters[f"{name}.{p}"], 0) for p in ("weight", "bias") if f"{name}.{p}" in parameters}
    for name, keep in columns.items():
        whole = _along(keep, parameters[f"{name}.weight"], 1)
        mask[f"{name}.weight"] = mask[f"{name}.weight"] & whole if f"{name}.weight" in mask else whole
    return {name: mask[name] for name in parameters if name in mask}


def _along(keep: Tensor, weight: Tensor, dim: int) -> Tensor:
    shape = [1] * weight.dim()
    shape[dim] = len(keep)
    return keep.reshape(shape).expand(weight.shape).clone()


def add_l1(params: Mapping[str, Tensor], grads: Mapping[str, Tensor], names: list[str], strength: float) -> None:
    """The subgradient of ``strength`` × sum |scale|, in place (Liu et al. 2017, network slimming); 0 at 0."""
    for name in names:
        grads[name].add_(torch.sign(params[name]), alpha=strength)
