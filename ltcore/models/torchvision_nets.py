"""torchvision's classifiers as a family: ``Model("torchvision", options={"arch": "resnet50"})``, without trained weights."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from ltcore.channels import Link
from ltcore.data.torchvision_compat import torchvision_models
from ltcore.models.layers import image
from ltcore.names import nearest

RGB = 3


def torchvision_net(input_shape: Sequence[int], classes: int, arch: str = "resnet50", **options: Any) -> nn.Module:
    """A net of ``torchvision.models``; projections of its shortcuts (``downsample``) are of kind ``shortcut``.

    Weights are never downloaded. For images of other than 3 channels the first convolution is replaced by one for as many.

    Args:
        input_shape: (channels, height, width). classes: number of outputs.
        arch: a name of ``torchvision.models.list_models(module=torchvision.models)``.
        options: passed on to the net's builder, such as ``width_per_group``.

    Raises:
        UserError: torchvision is not installed.
        ValueError: no classifier of that name, inputs that are not images, or a net with auxiliary outputs (``aux_logits``).
    """
    models, channels = torchvision_models(), image(input_shape)[0]
    known = models.list_models(module=models)
    if arch not in known:
        raise ValueError(f"torchvision has no classifier {arch!r}{nearest(str(arch), known)}")
    net = models.get_model(arch, weights=None, num_classes=classes, **options)
    if getattr(net, "aux_logits", False):
        raise ValueError(f"{arch} has auxiliary outputs, which no loss here reads; add the option aux_logits: false")
    if channels != RGB:
        _take_channels(net, channels)
    projections = [name for name, m in net.named_modules() if ".downsample." in name and isinstance(m, nn.Conv2d)]
    net.layer_kinds = {f"{name}.weight": "shortcut" for name in projections}
    if isinstance(net, models.ResNet):
        net.channel_links = _resnet_links(net)
    return net


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
