"""Tensors on disk, and the ticket file: mask, weights at the rewind step, model and provenance in one safetensors file.

safetensors only, never pickle. Masks are stored as packed bits; their shapes stand in the file's metadata.
"""
from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ltcore.errors import UserError
from ltcore.models import own_state

FORMAT = "ltcore-1"


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any] | None = None) -> None:
    """Writes tensors; bool ones as packed bits.

    Raises:
        OSError: the file can't be written.
    """
    shapes = {n: list(t.shape) for n, t in tensors.items() if t.dtype == torch.bool}
    packed = {n: _pack(t) if n in shapes else t.detach().cpu().contiguous() for n, t in tensors.items()}
    about = {"format": FORMAT, "masks": json.dumps(shapes), "about": json.dumps(metadata or {}, sort_keys=True)}
    try:
        save_file(packed, path, metadata=about)
    except SafetensorError as error:  # it hides the system's error in its text
        code = re.search(r"os error (\d+)", str(error))
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) if code else OSError(str(error)) from error


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a file that :func:`save_tensors` wrote.

    Raises:
        UserError: the file is missing, damaged, or something else (a pickle, say).
    """
    try:
        with safe_open(path, "pt") as file:
            head = file.metadata() or {}
            if head.get("format") != FORMAT:
                raise UserError(f"{path} is a safetensors file, but not one of ours (no format {FORMAT} in its metadata)")
            shapes, about = json.loads(head["masks"]), json.loads(head["about"])
            return {n: _unpack(file.get_tensor(n), shapes[n]) if n in shapes else file.get_tensor(n) for n in file.keys()}, about  # noqa: SIM118 - it has keys, but is no dict
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} can't be read: damaged, or not a safetensors file ({reason[:200]})") from error


def _pack(mask: Tensor) -> Tensor:
    return torch.from_numpy(np.packbits(mask.cpu().numpy().ravel()))


def _unpack(bits: Tensor, shape: list[int]) -> Tensor:
    n = int(np.prod(shape, dtype=np.int64))
    if bits.dtype != torch.uint8 or bits.dim() != 1 or len(bits) != -(-n // 8):
        raise ValueError(f"a mask of shape {shape} does not fit its {bits.numel()} bytes")
    return torch.from_numpy(np.unpackbits(bits.numpy(), count=n).astype(bool).reshape(shape))


@dataclass(frozen=True)
class Ticket:
    """A subnetwork to train: which weights, from which values, of what model, and where it came from.

    Args:
        mask: prunable parameter -> bool.
        weights: parameters and buffers at the rewind step, unmasked.
        about: JSON values: model, data, where the ticket was found (``found_on``), protocol, level, rewind step, stage hashes.
    """

    mask: Mapping[str, Tensor]
    weights: Mapping[str, Tensor]
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def density(self) -> float:
        """Fraction of the prunable weights kept."""
        return sum(int(m.sum()) for m in self.mask.values()) / max(sum(m.numel() for m in self.mask.values()), 1)

    def apply(self, module: nn.Module, fresh: Collection[str] = ()) -> nn.Module:
        """Puts ``weights * mask`` into a module of the same names and shapes, and returns it.

        Args:
            fresh: layers of the module that keep their own weights, such as an output layer for another number of classes.

        Raises:
            UserError: a name or a shape does not fit; the module is left as it was.
        """
        skipped = tuple(f"{layer}." for layer in fresh)
        own = {n: t for n, t in own_state(module).items() if not n.startswith(skipped)}
        weights = {n: w for n, w in self.weights.items() if not n.startswith(skipped)}
        for name, w in weights.items():
            if name not in own or own[name].shape != w.shape:
                there = tuple(own[name].shape) if name in own else "no such tensor"
                raise UserError(f"the ticket does not fit this model: {name!r} is {tuple(w.shape)} in the ticket, {there} in the model")
        missing = sorted(set(own) - set(weights))
        if missing:
            raise UserError(f"the ticket does not fit this model: it has no {', '.join(missing[:3])}")
        values = {n: w * self.mask[n] if n in self.mask else w for n, w in weights.items()}
        module.load_state_dict(values, strict=False)  # names are checked above; tied weights have a second one
        return module

    def hold(self, module: nn.Module) -> list[RemovableHandle]:
        """Masks every gradient from now on, so that any optimiser leaves the pruned weights at 0, weight decay and momentum included."""
        parameters = dict(module.named_parameters())
        return [parameters[n].register_hook(functools.partial(_masked, m)) for n, m in self.mask.items() if n in parameters]

    def renamed(self, module: nn.Module) -> Ticket:
        """This ticket under the names of a module that has the same layers in the same order, called otherwise.

        A layer is the tensors of one prefix; layers are alike where their tensors have the same last names and numbers of dimensions, and are
        paired in order within their kind: convolutions with convolutions, whether batch norms stand between them or after them all.

        Raises:
            UserError: another number of layers of some kind.
        """
        mine, theirs = (_by_kind(state) for state in (self.weights, own_state(module)))
        for kind in (*mine, *theirs):
            if len(mine.get(kind, ())) != len(theirs.get(kind, ())):
                raise UserError(f"the ticket does not fit this model: {len(mine.get(kind, ()))} layers with {', '.join(n for n, _ in kind)} in the "
                                f"ticket, {len(theirs.get(kind, ()))} in the model")  # fmt: skip
        layers = {a: b for kind in mine for a, b in zip(mine[kind], theirs[kind])}

        def name(n: str) -> str:
            layer, _, last = n.rpartition(".")
            return f"{layers[layer]}.{last}".removeprefix(".")

        return Ticket({name(n): m for n, m in self.mask.items()}, {name(n): w for n, w in self.weights.items()}, self.about)


def _masked(mask: Tensor, gradient: Tensor) -> Tensor:
    return gradient * mask.to(gradient)


def _by_kind(state: Mapping[str, Tensor]) -> dict[tuple[tuple[str, int], ...], list[str]]:
    """Layers in order, by what tensors they have."""
    layers: dict[str, list[tuple[str, int]]] = {}
    for n, t in state.items():
        layer, _, last = n.rpartition(".")
        layers.setdefault(layer, []).append((last, t.dim()))
    kinds: dict[tuple[tuple[str, int], ...], list[str]] = {}
    for layer, tensors in layers.items():
        kinds.setdefault(tuple(sorted(tensors)), []).append(layer)
    return kinds


def save(path: Path, ticket: Ticket) -> None:
    """One file: ``mask/<name>`` and ``weights/<name>``."""
    tensors = {f"mask/{n}": m for n, m in ticket.mask.items()} | {f"weights/{n}": w for n, w in ticket.weights.items()}
    save_tensors(path, tensors, {"ticket": dict(ticket.about)})


def load(path: Path) -> Ticket:
    """The ticket of a file.

    Raises:
        UserError: not a file of ours, or a mask that does not fit its weights.
    """
    tensors, about = load_tensors(Path(path))
    if not isinstance(about, dict) or not isinstance(about.get("ticket"), dict):
        raise UserError(f"{path} holds tensors, but no ticket")
    groups: dict[str, dict[str, Tensor]] = {"mask": {}, "weights": {}}
    for name, t in tensors.items():
        group, _, rest = name.partition("/")
        groups.setdefault(group, {})[rest] = t
    for name, m in groups["mask"].items():
        if m.dtype != torch.bool or name not in groups["weights"] or groups["weights"][name].shape != m.shape:
            raise UserError(f"{path} is damaged: the mask of {name!r} does not fit its weights")
    return Ticket(groups["mask"], groups["weights"], about["ticket"])
