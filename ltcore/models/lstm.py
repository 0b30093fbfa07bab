"""LSTM language models (Zaremba et al. 2014; the layout of pytorch/examples, word_language_model)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ltcore.models.layers import Dropout

Memory = tuple[Tensor, Tensor]  # what goes from window to window: hidden state and cell, (layers, B, hidden) each


class LanguageLSTM(nn.Module):
    """Embedding, LSTM layers with dropout between them, decoder.

    With 33,278 words and its defaults 21,630,700 + 6,770,400 + 21,663,978 weights and biases (Yu et al. 2020), all of which may be pruned.

    Args:
        input_shape: () of a corpus.
        classes: words in the vocabulary.
        embedding, hidden: widths.
        layers: LSTM layers.
        dropout: between layers.
        tied: the decoder's matrix is the embedding's; their widths must agree then.
    """

    def __init__(self, input_shape: Sequence[int], classes: int, embedding: int = 650, hidden: int = 650, layers: int = 2,
                 dropout: float = 0.5, tied: bool = False):  # fmt: skip
        super().__init__()
        _check(input_shape, embedding, hidden, layers, tied)
        self.layers, self.hidden = layers, hidden
        self.embedding = nn.Embedding(classes, embedding)
        self.lstm = nn.ModuleList(nn.LSTM(a, hidden, batch_first=True) for a in (embedding, *[hidden] * (layers - 1)))
        self.drop = nn.ModuleList(Dropout(dropout) for _ in range(layers - 1))
        self.decoder = nn.Linear(hidden, classes)
        for matrix in (self.embedding.weight, self.decoder.weight):
            nn.init.uniform_(matrix, -0.1, 0.1)  # as pytorch/examples
        nn.init.zeros_(self.decoder.bias)
        if tied:
            self.decoder.weight = self.embedding.weight
        self.layer_kinds = {name: _kind(name) for name, _ in self.named_parameters()}

    def memory(self, batch: int) -> Memory:
        """What a text begins with: zeros."""
        weight = self.decoder.bias
        return weight.new_zeros(self.layers, batch, self.hidden), weight.new_zeros(self.layers, batch, self.hidden)

    def forward(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Memory]:
        """Words (B, T) -> scores of the next word (B, T, classes), and the memory after the last."""
        out, after = self.embedding(x), []
        for i, layer in enumerate(self.lstm):
            out = self.drop[i - 1](out) if i else out
            out, state = layer(out, (hidden[i : i + 1].contiguous(), cell[i : i + 1].contiguous()))
            after.append(state)
        return self.decoder(out), (torch.cat([h for h, _ in after]), torch.cat([c for _, c in after]))


def _check(input_shape: Sequence[int], embedding: int, hidden: int, layers: int, tied: bool) -> None:
    if tuple(input_shape) != ():
        raise ValueError(f"it takes words of a text, not inputs of {len(input_shape)} dimension(s)")
    if min(embedding, hidden, layers) < 1:
        raise ValueError(f"embedding, hidden and layers are at least 1; got {embedding}, {hidden} and {layers}")
    if tied and embedding != hidden:
        raise ValueError(f"a tied decoder needs embedding and hidden of one width, not {embedding} and {hidden}")


def _kind(name: str) -> str:
    if "bias" in name:
        return "bias"
    return "recurrent" if name.startswith("lstm") else name.partition(".")[0].replace("decoder", "output")
