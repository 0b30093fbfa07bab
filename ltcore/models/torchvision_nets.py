"""torchvision's classifiers as a family: ``Model("torchvision", options={"arch": "resnet50"})``, without trained weights."""
from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import interpolate

from ltcore.channels import Link
from ltcore.data.torchvision_compat import torchvision_models
from ltcore.models.layers import image
from ltcore.names import nearest

RGB = 3
PLANS = {"resnet26": (2, 3, 4, 3)}  # basic blocks a stage, of ResNets that torchvision does not name (official code of Chen et al. 2021)


def torchvision_net(input_shape: Sequence[int], classes: int, arch: str = "resnet50", enlarge: int = 0, **options: Any) -> nn.Module:
    """A net of ``torchvision.models``, or ResNet-26; projections of its shortcuts (``downsample``) are of kind ``shortcut``.

    Weights are never downloaded. For images of other than 3 channels the first convolution is replaced by one for as many.

    Args:
        input_shape: (channels, height, width). classes: number of outputs.
        arch: a name of ``torchvision.models.list_models(module=torchvision.models)``, or ``resnet26``.
        enlarge: height and width to which images are interpolated (bilinear) before the first layer; 0 leaves them as they are.
        options: passed on to the net's builder, such as ``width_per_group``.

    Raises:
        UserError: torchvision is not installed.
        ValueError: no classifier of that name, inputs that are not images, or a net with auxiliary outputs (``aux_logits``).
    """
    models, channels = torchvision_models(), image(input_shape)[0]
    known = [*models.list_models(module=models), *PLANS]
    if arch not in known:
        raise ValueError(f"torchvision has no classifier {arch!r}{nearest(str(arch), known)}")
    if arch in PLANS:
        net = models.ResNet(models.resnet.BasicBlock, list(PLANS[arch]), num_classes=classes, **options)
    else:
        net = models.get_model(arch, weights=None, num_classes=classes, **options)
    if getattr(net, "aux_logits", False):
        raise ValueError(f"{arch} has auxiliary outputs, which no loss here reads; add the option aux_logits: false")
    if channels != RGB:
        _take_channels(net, channels)
    projections = [name for name, m in net.named_modules() if ".downsample." in name and isinstance(m, nn.Conv2d)]
    net.layer_kinds = {f"{name}.weight": "shortcut" for name in projections}
    if isinstance(net, models.ResNet):
        net.channel_links, net.unit_stages = _resnet_links(net), _resnet_stages(net)
    if enlarge:
        net.enlarge = enlarge
        net.register_forward_pre_hook(functools.partial(_enlarged, enlarge))
    return net


def _enlarged(size: int, net: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Images (N, C, H, W) as (N, C, size, size)."""
    return (interpolate(inputs[0], (size, size), mode="bilinear", align_corners=False), *inputs[1:])


def _resnet_stages(net: nn.Module) -> tuple[tuple[tuple[str, ...], ...], ...]:
    """Residual blocks stage by stage, as ``ltcore.elastic`` moves them."""
    layers = (f"layer{i}" for i in range(1, 5))
    return tuple(tuple((f"{layer}.{i}.",) for i in range(len(net.get_submodule(layer)))) for layer in layers)


def _resnet_links(net: nn.Module) -> dict[str, Link]:
    """Of torchvision's ResNets: ``bn1`` follows ``conv1`` and feeds ``conv2`` and so on; the last of a block, the stem's and the
    projections' add to a stream."""
    there, found = {name for name, _ in net.named_modules()}, {}
    for name, _ in ((n, m) for n, m in net.named_modules() if isinstance(m, nn.BatchNorm2d)):
        block, _, leaf = name.rpartition(".")
        if leaf.startswith("bn"):
            at = f"{block}.conv" if block else "conv"
            following = f"{at}{int(leaf[2:]) + 1}"
            found[name] = Link(f"{at}{leaf[2:]}", (following,) if following in there else ())
        else:  # downsample.0 and .1
            found[name] = Link(f"{block}.{int(leaf) - 1}")
    return found


def _take_channels(net: nn.Module, channels: int) -> None:
    """Replaces the convolution that reads the image by a like one for ``channels`` channels."""
    name, old = next((name, m) for name, m in net.named_modules() if isinstance(m, nn.Conv2d))
    new = nn.Conv2d(channels, old.out_channels, old.kernel_size, old.stride, old.padding, old.dilation, old.groups, old.bias is not None)
    net.set_submodule(name, new)
