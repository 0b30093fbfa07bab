"""Images that stay in their files and are decoded when a batch asks for them, by threads: Pillow decodes without the interpreter's lock."""

import dataclasses
import functools
import struct
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ltcore.data.augment import resized_crop
from ltcore.data.torchvision_compat import torchvision_transforms
from ltcore.errors import UserError

CHANNELS = 3  # everything is read as RGB, grey and CMYK files too, as torchvision's image folder does
BROKEN = (OSError, EOFError, SyntaxError, ValueError, struct.error)  # what Pillow raises for broken files of its many formats


@dataclass(frozen=True, eq=False)
class Images:
    """A list of image files where a `Split` otherwise has a tensor of raw values (N, 3, size, size) uint8.

    Read by index or slice, an image is what torchvision's `Resize(resize)` and `CenterCrop(size)` make of it, bit for bit.
    """

    files: Sequence[str]
    size: int
    resize: int
    device: torch.device | str = "cpu"  # where decoded batches go

    def __len__(self) -> int:
        return len(self.files)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.files), CHANNELS, self.size, self.size)

    def to(self, device: torch.device | str) -> "Images":
        return dataclasses.replace(self, device=device)

    def __getitem__(self, part: slice) -> Tensor:
        return self.begin(range(*part.indices(len(self)))).result()

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """As the tensor method, along dimension 0."""
        return self.begin(index.tolist()).result()

    def begin(self, index: Sequence[int], draws: Tensor | None = None) -> "Decoding":
        """Starts to decode these images; with `draws` (len(index), `augment.DRAWS`) each cropped, resized and mirrored at random."""
        rows = [None] * len(index) if draws is None else draws.tolist()
        return Decoding([_pool().submit(self._decoded, self.files[i], row) for i, row in zip(index, rows)], self.shape[1:], self.device)

    def _decoded(self, file: str, draws: Sequence[float] | None) -> Tensor:
        """(3, size, size) uint8. Raises UserError naming the file."""
        from PIL import Image

        try:
            with Image.open(file) as opened:
                image = opened.convert("RGB")
        except (*BROKEN, Image.DecompressionBombError) as error:
            why = (str(error) or type(error).__name__).splitlines()[0]
            raise UserError(f"{file} cannot be read as an image ({why}); replace the file, or take it out of its folder") from error
        made = self._evaluated(image) if draws is None else self._augmented(image, draws)
        return torch.from_numpy(np.array(made)).permute(2, 0, 1).contiguous()  # here, where many threads do it

    def _evaluated(self, image):
        functional = torchvision_transforms().functional
        return functional.center_crop(functional.resize(image, self.resize), self.size)

    def _augmented(self, image, draws: Sequence[float]):
        functional = torchvision_transforms().functional
        image = functional.resized_crop(image, *resized_crop(draws, *image.size), [self.size, self.size])
        return functional.hflip(image) if draws[-1] < 0.5 else image


@dataclass(frozen=True)
class Decoding:
    """Images on their way."""

    parts: Sequence[Future]
    shape: tuple[int, ...]  # of one
    device: torch.device | str

    def result(self) -> Tensor:
        """(n, 3, size, size) uint8, as soon as all are there. Raises UserError naming a file that is no image."""
        batch = torch.empty(len(self.parts), *self.shape, dtype=torch.uint8)
        for row, part in zip(batch, self.parts):
            row.copy_(part.result())
        return batch.to(self.device)

    def cancel(self) -> None:
        """Takes back what no thread has begun."""
        for part in self.parts:
            part.cancel()


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """As many threads as this process computes with: one in a worker on CPU, which has neighbours on the other cores."""
    return ThreadPoolExecutor(torch.get_num_threads(), thread_name_prefix="decode")
