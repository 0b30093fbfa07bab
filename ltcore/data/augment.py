"""Random crops and flips of whole batches on the device, a pure function of (key, step): the same alone, stacked and after a resume."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ltcore import seeds

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
