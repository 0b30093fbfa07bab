"""Translations as numbers: pairs of sentences in pieces of words, which both languages share (byte-pair encoding, Sennrich et al. 2016)."""

import array
import hashlib
import importlib.util
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ltcore.data.cache import cache_folder
from ltcore.data.corpus import EOS, UNK, Corpus, Sentences, build
from ltcore.errors import PackageMissingError, UsageError

PAD = "<pad>"
CHUNK = 10_000  # texts cut in one call: millions at once would take tens of GB
SPECIAL = (PAD, UNK, EOS)  # numbers 0, 1 and 2
Pairs = Sequence[tuple[str, str]]


def tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """A byte-pair encoding of ``vocabulary`` pieces, trained on texts: words keep the space before them, punctuation stands alone.

    Raises:
        PackageMissingError: package ``tokenizers`` is not installed.
    """
    library = _library()
    bpe = library.Tokenizer(library.models.BPE(unk_token=UNK))
    space = library.pre_tokenizers.Metaspace()
    bpe.pre_tokenizer = library.pre_tokenizers.Sequence([space, library.pre_tokenizers.Punctuation()])
    bpe.decoder = library.decoders.Metaspace()
    bpe.train_from_iterator(texts, library.trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=list(SPECIAL), show_progress=False))
    return bpe


def loaded(text: str) -> Any:
    """The tokenizer that a corpus was cut with."""
    return _library().Tokenizer.from_str(text)


def _library() -> Any:
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ImportError as error:
        raise PackageMissingError("translation needs the package tokenizers: pip install tokenizers") from error
    return tokenizers


def corpus(name: str, parts: Sequence[Pairs], vocabulary: int, *, source: str, note: str = "") -> Corpus:
    """A Corpus of (training, validation, test) pairs, cut by an encoding of the training part and kept on disk.

    Raises:
        UsageError: a vocabulary too small for the characters. PackageMissingError: package ``tokenizers`` is not installed, or ``sacrebleu``,
            of which it is better to hear before a training than at its end.
    """
    if importlib.util.find_spec("sacrebleu") is None:
        raise PackageMissingError("translation needs the package sacrebleu: pip install sacrebleu")
    if not isinstance(vocabulary, int) or isinstance(vocabulary, bool) or vocabulary < len(SPECIAL) + 1:
        raise UsageError(f"data set {name}: option vocabulary is a whole number of pieces, not {vocabulary!r}")
    kept = cache_folder() / f"{name}-{_key(parts, vocabulary)}.safetensors"
    tensors, bpe = _read(kept)
    if tensors is None:
        bpe = tokenizer((side for pair in parts[0] for side in pair), vocabulary)
        tensors = {f"{i}-{k}": t for i, part in enumerate(parts) for k, t in enumerate(_cut(bpe, part))}
        _write(kept, tensors, bpe.to_str())
    words = [bpe.id_to_token(i) for i in range(bpe.get_vocab_size())]
    sentences = [
        Sentences(*(tensors[f"{i}-{k}"] for k in range(4)), tuple(b for _, b in part) if i else ()) for i, part in enumerate(parts)
    ]
    return build(name, sentences, words, source=source, note=note, tokenizer=bpe.to_str())


def _cut(bpe: Any, pairs: Pairs) -> tuple[Tensor, ...]:
    """The tensors of `Sentences`: both sides, then where their sentences begin."""
    sides = [_encoded(bpe, [pair[side] for pair in pairs]) for side in (0, 1)]
    return *(flat for flat, _ in sides), *(at for _, at in sides)


def _encoded(bpe: Any, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """All texts as one tensor, and where each begins."""
    flat, lengths = array.array("q"), array.array("q", [0])
    for a in range(0, len(texts), CHUNK):
        for encoding in bpe.encode_batch(texts[a : a + CHUNK]):
            flat.extend(encoding.ids)
            lengths.append(len(encoding.ids))
    return torch.tensor(flat, dtype=torch.int64), torch.tensor(lengths).cumsum(0)


def _key(parts: Sequence[Pairs], vocabulary: int) -> str:
    """Of everything that the tensors depend on."""
    digest = hashlib.sha256(f"{vocabulary} {_library().__version__}".encode())
    for part in parts:
        digest.update(f"\n{len(part)}\n".encode())
        for pair in part:
            digest.update("\t".join(pair).encode())
    return digest.hexdigest()[:24]


def _read(path: Path) -> tuple[dict[str, Tensor] | None, Any]:
    try:
        with safe_open(str(path), framework="pt") as file:
            return {key: file.get_tensor(key) for key in sorted(file.keys())}, loaded(file.metadata()["tokenizer"])
    except (OSError, SafetensorError):
        return None, None


def _write(path: Path, tensors: dict[str, Tensor], bpe: str) -> None:
    """Whole or not at all; where the folder can't be written the next process makes them again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            save_file(tensors, str(Path(scratch) / path.name), metadata={"tokenizer": bpe})
            os.replace(Path(scratch) / path.name, path)
    except (OSError, SafetensorError):
        return
