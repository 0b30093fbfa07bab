"""Running text as numbers, word by word, with one <eos> a line: what word-level language models of WikiText-2 count."""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from ltcore.data.corpus import EOS, UNK, Corpus, Tokens, build
from ltcore.errors import UsageError

OPTIONS = ("vocabulary", "tokens", "held_out")  # words kept; tokens of the training part; tokens of validation and test part each
PARTS = ("train", "valid", "test")


def corpus(name: str, texts: Mapping[str, Iterable[str]], options: Mapping[str, Any], *, source: str) -> Corpus:
    """A Corpus of lines.

    Args:
        texts: lines of ``train``, ``valid`` and ``test``.
        options: ``tokens`` and ``held_out`` keep the first so many tokens; ``vocabulary`` the most frequent words of what is left of the
            training part (of equally frequent ones those that come first), <unk> and <eos> among them; other words become <unk>.
    """
    limits = _limits(name, options)
    parts = [list(itertools.islice(_stream(texts[part]), limits["tokens" if part == "train" else "held_out"])) for part in PARTS]
    words = vocabulary(parts[0], limits["vocabulary"])
    number = {word: i for i, word in enumerate(words)}
    tokens = [Tokens(torch.tensor([number.get(word, 0) for word in part])) for part in parts]
    return build(name, tokens, words, source=source, note=_note(options))


def vocabulary(train: Sequence[str], most: int | None = None) -> list[str]:
    """<unk>, <eos>, then the other words, the most frequent first; ``most`` in all."""
    ranked = [word for word, _ in Counter(train).most_common() if word not in (UNK, EOS)]
    return [UNK, EOS, *ranked][:most]


def _stream(lines: Iterable[str]) -> Iterable[str]:
    return itertools.chain.from_iterable([*line.split(), EOS] for line in lines)


def _limits(name: str, options: Mapping[str, Any]) -> dict[str, int | None]:
    for option, value in options.items():
        if option not in OPTIONS:
            raise UsageError(f"data set {name} has no option {option!r}; it takes {', '.join(OPTIONS)}")
        if not isinstance(value, int) or isinstance(value, bool) or value < 2:
            raise UsageError(f"data set {name}: option {option} is a whole number from 2 up, not {value!r}")
    return dict.fromkeys(OPTIONS) | dict(options)


def _note(options: Mapping[str, Any]) -> str:
    """What sets a part apart from the whole."""
    said = {
        "vocabulary": "the {:,} most frequent words",
        "tokens": "the first {:,} tokens to train on",
        "held_out": "the first {:,} tokens to test on",
    }
    return ", ".join(text.format(options[option]) for option, text in said.items() if option in options)
