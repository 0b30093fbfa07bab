"""Networks by the names that papers on depth give them: ``resnet32``, ``vgg13``, ``vgg13-3fc``, ``mlp-2``. No torch is imported here."""
from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ltcore.errors import UsageError


def _mlp_options(found: re.Match, options: Mapping[str, Any]) -> dict[str, Any]:
    """As many hidden layers of the first width; the last keeps its own."""
    return {**options, "hidden": [options["hidden"][0]] * int(found[1]) + [options["hidden"][-1]]}


def _resnet_options(found: re.Match, options: Mapping[str, Any]) -> dict[str, Any]:
    return {**options, "depth": int(found[1])}


def _vgg_options(found: re.Match, options: Mapping[str, Any]) -> dict[str, Any]:
    return {**options, "depth": int(found[1])} | ({"linear": int(found[2])} if found[2] else {})


def _torchvision_options(found: re.Match, options: Mapping[str, Any]) -> dict[str, Any]:
    return {**options, "arch": found[0]}


NETWORKS: dict[str, tuple[str, Callable[[re.Match, Mapping[str, Any]], dict[str, Any]]]] = {
    "lenet": (r"mlp-(\d+)", _mlp_options), "torchvision": (r"resnet\d+", _torchvision_options),
    "resnet": (r"resnet(\d+)", _resnet_options), "vgg": (r"vgg(\d+)(?:-(\d+)fc)?", _vgg_options),
}  # fmt: skip


def at_depth(family: str, options: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Options of the network that ``name`` means (``resnet32``, ``vgg13``, ``vgg13-3fc``, ``mlp-2``), all but depth as in ``options``.

    Raises:
        UsageError: a name that is none of the family's.
    """
    pattern, make = NETWORKS.get(family, (r"(?!)", _resnet_options))
    found = re.fullmatch(pattern, name)
    if not found:
        raise UsageError(f"unknown network {name!r} of family {family!r}: write mlp-2, resnet32, vgg13 or vgg13-3fc")
    return make(found, options)
