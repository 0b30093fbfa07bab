"""The Transformer for translation (Vaswani et al. 2017) as fairseq sets it up (Ott et al. 2018)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltcore.models.layers import Dropout

PAD = 0  # number of the padding piece; what stands there is never attended to and never counts
# Width, width between the two linear layers, heads, layers a side, dropout.
SIZES = {
    "base": (512, 2048, 8, 6, 0.1),
    "big": (1024, 4096, 16, 6, 0.3),
    "small": (128, 256, 4, 4, 0.3),  # for Multi30k: the "tiny" Transformer of Wu et al. 2021 (arXiv 2105.14462)
    "tiny": (32, 64, 2, 1, 0.0),  # ours, for tests of the machinery
}  # fmt: skip
Cache = list[dict[str, Tensor]]  # of each decoder layer: keys and values so far, and those of the source


class Transformer(nn.Module):
    """Encoder and decoder with sinusoidal positions and one embedding for both sides and the output.

    With the 32,768 pieces of fairseq's joint dictionary, big has 209.9 M parameters. Weights of attention have kind ``attention``, those of
    the two linear layers ``fc``, the embedding ``embedding``; biases ``bias``. Norms have no kind.

    Args:
        input_shape: () of a corpus.
        classes: pieces in the vocabulary.
        size: a key of ``SIZES``; width, inner, heads, layers and dropout override what it says.
        pre_norm: normalise before each sublayer (and once at the end) instead of after it.
    """

    def __init__(self, input_shape: Sequence[int], classes: int, size: str = "base", width: int | None = None, inner: int | None = None,
                 heads: int | None = None, layers: int | None = None, dropout: float | None = None, pre_norm: bool = False):  # fmt: skip
        super().__init__()
        if tuple(input_shape) != ():
            raise ValueError(f"it takes pieces of sentences, not inputs of {len(input_shape)} dimension(s)")
        if size not in SIZES:
            raise ValueError(f"size {size!r} is not one of {', '.join(SIZES)}")
        d, f, h, n, p = (given if given is not None else own for given, own in zip((width, inner, heads, layers, dropout), SIZES[size]))
        if d % (2 * h):
            raise ValueError(f"width {d} does not divide into {h} heads of an even size")
        self.width = d
        self.embedding = nn.Embedding(classes, d, padding_idx=PAD)
        nn.init.normal_(self.embedding.weight, std=d**-0.5)
        nn.init.zeros_(self.embedding.weight[PAD])
        self.drop = nn.ModuleList(Dropout(p) for _ in range(2))
        self.encoder = nn.ModuleList(EncoderLayer(d, f, h, p, pre_norm) for _ in range(n))
        self.decoder = nn.ModuleList(DecoderLayer(d, f, h, p, pre_norm) for _ in range(n))
        self.last = nn.ModuleList(nn.LayerNorm(d) if pre_norm else nn.Identity() for _ in range(2))
        self.layer_kinds = {name: kind for name, _ in self.named_parameters() if (kind := _kind(name))}

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Source (B, S) and what has been written of the target (B, T) -> scores of each next piece (B, T, classes)."""
        memory, hidden = self.encode(source)
        x = self._embedded(target, 0, self.drop[1])
        ahead = torch.ones(target.shape[1], target.shape[1], dtype=torch.bool, device=target.device).triu(1)
        for layer in self.decoder:
            x = layer(x, memory, ahead, hidden)
        return self._scores(x)

    def encode(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, width), and what must not be attended to (B, 1, 1, S)."""
        hidden = (source == PAD)[:, None, None, :]
        x = self._embedded(source, 0, self.drop[0])
        for layer in self.encoder:
            x = layer(x, hidden)
        return self.last[0](x), hidden

    def start(self, memory: Tensor) -> Cache:
        """What decoding piece by piece begins with."""
        return [layer.cache(memory) for layer in self.decoder]

    def step(self, piece: Tensor, place: int, cache: Cache, hidden: Tensor) -> Tensor:
        """The last piece written (B,) at its place -> scores of the next (B, classes); the cache grows."""
        x = self._embedded(piece[:, None], place, self.drop[1])
        for layer, kept in zip(self.decoder, cache):
            x = layer.step(x, kept, hidden)
        return self._scores(x)[:, 0]

    def _embedded(self, pieces: Tensor, place: int, drop: Dropout) -> Tensor:
        weight = self.embedding.weight
        x = math.sqrt(self.width) * self.embedding(pieces) + positions(place, pieces.shape[1], self.width).to(weight)
        return drop(x)

    def _scores(self, x: Tensor) -> Tensor:
        return F.linear(self.last[1](x), self.embedding.weight)


def positions(first: int, count: int, width: int) -> Tensor:
    """Sines, then cosines, of places first … first + count − 1, (count, width) float64.

    As in tensor2tensor and fairseq: frequencies from 1 down to 1/10000, halves beside each other instead of interleaved.
    """
    half = width // 2
    frequency = torch.exp(torch.arange(half, dtype=torch.float64) * (-math.log(10_000) / max(half - 1, 1)))
    angle = torch.arange(first, first + count, dtype=torch.float64)[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)


class Attention(nn.Module):
    """Several heads of scaled dot-product attention."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        for layer in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(layer.weight, gain=2**-0.5)  # fairseq draws the three as one matrix
        nn.init.xavier_uniform_(self.out.weight)
        for layer in (self.query, self.key, self.value, self.out):
            nn.init.zeros_(layer.bias)

    def split(self, x: Tensor) -> Tensor:
        """(B, T, width) -> (B, heads, T, width / heads)."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor, other: Tensor, hidden: Tensor | None) -> Tensor:
        """x (B, T, width) looks at other (B, S, width), but where ``hidden`` says so."""
        return self.look(x, self.split(self.key(other)), self.split(self.value(other)), hidden)

    def look(self, x: Tensor, keys: Tensor, values: Tensor, hidden: Tensor | None) -> Tensor:
        scores = self.split(self.query(x) * self.scale) @ keys.transpose(2, 3)  # (B, heads, T, S)
        if hidden is not None:  # the lowest finite number instead of -inf: a row of padding alone must not become NaN
            scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
        return self.out((scores.softmax(3) @ values).transpose(1, 2).flatten(2))


class _Layer(nn.Module):
    """Sublayers with dropout, residual connection and norm."""

    def __init__(self, width: int, inner: int, dropout: float, pre_norm: bool, sublayers: int):
        super().__init__()
        self.pre_norm = pre_norm
        self.norm = nn.ModuleList(nn.LayerNorm(width) for _ in range(sublayers))
        self.drop = nn.ModuleList(Dropout(dropout) for _ in range(sublayers))
        self.inner, self.outer = nn.Linear(width, inner), nn.Linear(inner, width)
        for layer in (self.inner, self.outer):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def before(self, i: int, x: Tensor) -> Tensor:
        return self.norm[i](x) if self.pre_norm else x

    def after(self, i: int, x: Tensor, change: Tensor) -> Tensor:
        x = x + self.drop[i](change)
        return x if self.pre_norm else self.norm[i](x)

    def feed(self, i: int, x: Tensor) -> Tensor:
        return self.after(i, x, self.outer(self.inner(self.before(i, x)).relu()))


class EncoderLayer(_Layer):
    def __init__(self, width: int, inner: int, heads: int, dropout: float, pre_norm: bool):
        super().__init__(width, inner, dropout, pre_norm, 2)
        self.attention = Attention(width, heads)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        seen = self.before(0, x)
        return self.feed(1, self.after(0, x, self.attention(seen, seen, hidden)))


class DecoderLayer(_Layer):
    def __init__(self, width: int, inner: int, heads: int, dropout: float, pre_norm: bool):
        super().__init__(width, inner, dropout, pre_norm, 3)
        self.attention, self.cross = Attention(width, heads), Attention(width, heads)

    def forward(self, x: Tensor, memory: Tensor, ahead: Tensor, hidden: Tensor) -> Tensor:
        """x (B, T, width), memory (B, S, width); ``ahead`` (T, T) hides what is not yet written, ``hidden`` padding of the source."""
        seen = self.before(0, x)
        x = self.after(0, x, self.attention(seen, seen, ahead))
        x = self.after(1, x, self.cross(self.before(1, x), memory, hidden))
        return self.feed(2, x)

    def cache(self, memory: Tensor) -> dict[str, Tensor]:
        return {"key": self.cross.split(self.cross.key(memory)), "value": self.cross.split(self.cross.value(memory))}

    def step(self, x: Tensor, kept: dict[str, Tensor], hidden: Tensor) -> Tensor:
        """As forward for one place, x (B, 1, width)."""
        seen = self.before(0, x)
        for name, layer in (("own_key", self.attention.key), ("own_value", self.attention.value)):
            new = self.attention.split(layer(seen))
            kept[name] = torch.cat([kept[name], new], dim=2) if name in kept else new
        x = self.after(0, x, self.attention.look(seen, kept["own_key"], kept["own_value"], None))
        x = self.after(1, x, self.cross.look(self.before(1, x), kept["key"], kept["value"], hidden))
        return self.feed(2, x)


def _kind(name: str) -> str:
    if ".norm." in name or name.startswith("last."):
        return ""
    if name.endswith(".bias"):
        return "bias"
    return "embedding" if name.startswith("embedding") else "attention" if ".attention." in name or ".cross." in name else "fc"
