"""Numbers in English words and in German ones, by package num2words: a small true task of translation that needs no corpus.

``forty-two`` is ``zweiundvierzig``: the order of tens and units turns round and words grow together, so it is more than a dictionary.
A sentence is a list of numbers, as BLEU counts runs of up to four words.
"""

import functools
import random

from ltcore.data.corpus import Corpus
from ltcore.data.pieces import corpus
from ltcore.errors import PackageMissingError, UsageError

SEED, BELOW, MOST, NUMBERS = 0, 1000, 100_000, 4  # numbers below 1,000, four a sentence
VOCABULARY = 200


def number_words(train: int = 4000, test: int = 200, vocabulary: int = VOCABULARY) -> Corpus:
    """``train`` + ``test`` + ``test`` sentences (training, validation and test part), the same for everybody.

    Raises:
        UsageError: too many or none. PackageMissingError: package ``num2words`` or ``tokenizers`` is not installed.
    """
    if min(train, test) < 1 or train + 2 * test > MOST:
        raise UsageError(f"number-words: train + 2 * test must be at most {MOST:,}, both at least 1; got {train} and {test}")
    return _number_words(train, test, vocabulary)


@functools.lru_cache(maxsize=4)
def _number_words(train: int, test: int, vocabulary: int) -> Corpus:
    drawn = random.Random(SEED)
    lists = [[drawn.randrange(BELOW) for _ in range(NUMBERS)] for _ in range(train + 2 * test)]
    pairs = [tuple(", ".join(words[n] for n in numbers) for words in _both()) for numbers in lists]
    parts = [pairs[:train], pairs[train : train + test], pairs[train + test :]]
    return corpus("number-words", parts, vocabulary, source="made by num2words")


@functools.cache
def _both() -> tuple[list[str], list[str]]:
    """All numbers in English and in German."""
    try:
        from num2words import num2words
    except ImportError as error:
        raise PackageMissingError("data set number-words needs the package num2words: pip install num2words") from error
    english, german = ([num2words(n, lang=lang) for n in range(BELOW)] for lang in ("en", "de"))
    return english, german
