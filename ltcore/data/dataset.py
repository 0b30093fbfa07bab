"""A data set as whole tensors, and the one draw that splits validation examples off it.

Raw values stay in their own type (uint8 for images), so that a set is small on the device; `Dataset.prepare` turns a batch into network input.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ltcore.data.images import Images
from ltcore.errors import UsageError


@dataclass(frozen=True, eq=False)
class Split:
    """Inputs and labels of one part of a data set."""

    x: Tensor | Images  # (N, C, H, W) uint8 for images, (N, ...) float32 otherwise; raw values, or the files that hold them
    y: Tensor  # (N,) int64, 0 ... classes - 1

    def __len__(self) -> int:
        return len(self.y)

    def first(self, n: int) -> "Split":
        """The first n examples, or all; of files none is read."""
        x = dataclasses.replace(self.x, files=self.x.files[:n]) if isinstance(self.x, Images) else self.x[:n]
        return Split(x, self.y[:n])

    def to(self, device: torch.device | str) -> "Split":
        return Split(self.x.to(device), self.y.to(device))


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test part, and what makes network input of raw values: (raw - shift) / scale.

    `source` says where it came from ("folder", "download", "formula (mnist1d)" ...). When it stands in for a set that could not be had,
    `fallback_for` names that set and `note` is the line to print; else None and "". A set that is not whole has a `note` too.
    """

    name: str
    train: Split
    test: Split
    classes: int
    scale: Tensor  # () or (C, 1, 1) float32, in units of raw values
    shift: Tensor | None  # as scale; None is 0 and costs nothing
    source: str
    fingerprint: str  # sha256 of every tensor above (of decoded sets: see `folder.read_folders`); does not depend on where the files lay
    fallback_for: str | None = None
    note: str = ""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example, e.g. (1, 28, 28)."""
        return tuple(self.train.x.shape[1:])

    @property
    def decoded(self) -> bool:
        """Whether images stay in files and are decoded batch by batch."""
        return isinstance(self.train.x, Images)

    @property
    def device(self) -> torch.device:
        return self.train.y.device

    def prepare(self, x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Network input of raw values x (..., *input_shape), on x's device; x itself is never written to."""
        out = x.to(dtype)
        if self.shift is not None:
            out = out - self.shift.to(out)
        return out / self.scale.to(out)

    def to(self, device: torch.device | str) -> "Dataset":
        shift = None if self.shift is None else self.shift.to(device)
        return dataclasses.replace(self, train=self.train.to(device), test=self.test.to(device), scale=self.scale.to(device), shift=shift)


def build(name: str, train: Split, test: Split, classes: int, *, source: str, scale: float | Sequence[float] | Tensor = 1.0,
          shift: float | Sequence[float] | Tensor = 0.0) -> Dataset:
    """A Dataset with its fingerprint. `scale` and `shift` are one number, or one a channel, in units of raw values."""
    scale_t, shift_t = constant(scale), constant(shift)
    shift_t = shift_t if shift_t.any() else None
    tensors = [train.x, train.y, test.x, test.y, scale_t, *([] if shift_t is None else [shift_t])]
    return Dataset(name, train, test, classes, scale_t, shift_t, source, fingerprint(tensors))


def constant(value: float | Sequence[float] | Tensor) -> Tensor:
    """One number, or one a channel, in the shape in which a Dataset keeps it."""
    tensor = torch.as_tensor(value, dtype=torch.float32)
    return tensor if tensor.ndim == 0 else tensor.view(-1, 1, 1)  # (C, 1, 1) lies beside (..., C, H, W)


def fingerprint(tensors: Iterable[Tensor]) -> str:
    """sha256 over dtype, shape and raw bytes of the tensors, in their order."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(memoryview(tensor.detach().cpu().contiguous().reshape(-1).numpy()))
    return digest.hexdigest()


def split(dataset: Dataset, n_val: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Takes `n_val` random training examples for validation: (train_index, val_index), int64, each in rising order, on the CPU.

    One call to torch.randperm on `generator`, so that one draw a trial is one generator a trial.
    """
    n = len(dataset.train)
    if not 0 <= n_val < n:
        raise UsageError(f"{dataset.name}: cannot take {n_val} validation examples from {n} training examples; take 0 to {n - 1}")
    order = torch.randperm(n, generator=generator, device=generator.device).cpu()
    return order[n_val:].sort().values, order[:n_val].sort().values
