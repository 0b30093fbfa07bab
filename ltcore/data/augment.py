"""Random crops and flips, a pure function of (key, step): the same alone, stacked and after a resume.

``crop_flip`` works on whole batches on the device; ``resized_crop`` says which part of an image that is being decoded is taken.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ltcore import seeds

AREA, RATIO, TRIES = (0.08, 1.0), (3 / 4, 4 / 3), 10  # torchvision's RandomResizedCrop, after Szegedy et al. 2015
DRAWS = 2 * TRIES + 3  # area and ratio of every try, place (2), and which side is left
PAD = 4  # pixels on every side, as He et al. 2016 (section 4.2) and the papers that follow them


def crop_flip(x: Tensor, keys: Tensor, step: int | Tensor, pad: int = PAD) -> Tensor:
    """Zero-pads each image by ``pad``, crops its own size back at a random place and mirrors half of them.

    Every image draws for itself; the draws are those of torchvision's ``RandomCrop(size, padding)`` and ``RandomHorizontalFlip``.

    Args:
        x: raw images (R, B, C, H, W), zero before normalisation is what torchvision pads with. keys: (R,) int64 below 2**31, one a
            replicate. step: the iteration; inside a captured step () int64. All tensors lie on one device.
    """
    (copies, batch, channels), (height, width) = x.shape[:3], x.shape[3:]
    down, right, mirror = seeds.uniform(keys[:, None], step, 3 * batch).reshape(copies * batch, 3).unbind(1)  # (R·B,) each
    rows = _offset(down, pad)[:, None] + torch.arange(height, device=x.device)  # (R·B, H)
    columns = torch.arange(width, device=x.device).expand(copies * batch, -1)
    columns = torch.where(mirror[:, None] < 0.5, columns.flip(1), columns) + _offset(right, pad)[:, None]  # (R·B, W)
    padded = F.pad(x.flatten(0, 1), [pad] * 4).flatten(2)  # (R·B, C, (H+2p)·(W+2p))
    place = (rows[:, :, None] * (width + 2 * pad) + columns[:, None, :]).flatten(1)  # (R·B, H·W)
    return padded.gather(2, place[:, None].expand(-1, channels, -1)).reshape(x.shape)


def _offset(u: Tensor, pad: int) -> Tensor:
    """A uniform number in [0, 1) as one of the 2·pad + 1 places of the crop."""
    return (u * (2 * pad + 1)).long()


def crop_draws(keys: Tensor, step: int, batch: int) -> Tensor:
    """What `resized_crop` and a flip need of each image, uniform in [0, 1): (R, B, DRAWS) on the device of keys (R,), as `crop_flip`'s."""
    return seeds.uniform(keys[:, None], step, DRAWS * batch).reshape(len(keys), batch, DRAWS)


def resized_crop(draws: Sequence[float], width: int, height: int) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the crop, with the distribution of torchvision's `RandomResizedCrop.get_params`.

    The first of ten tries that fits is taken, else the largest central part of an allowed ratio. The last of the draws is the flip's.
    """
    low, high = (math.log(r) for r in RATIO)
    for area, ratio in zip(draws[:TRIES], draws[TRIES : 2 * TRIES]):
        pixels, aspect = width * height * (AREA[0] + (AREA[1] - AREA[0]) * area), math.exp(low + (high - low) * ratio)
        w, h = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(draws[-3] * (height - h + 1)), int(draws[-2] * (width - w + 1)), h, w
    w, h = min(width, round(height * RATIO[1])), min(height, round(width / RATIO[0]))
    return (height - h) // 2, (width - w) // 2, h, w
