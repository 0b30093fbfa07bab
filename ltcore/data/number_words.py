"""Numbers in English words and in German ones, by package num2words: a small true task of translation that needs no corpus.

``forty-two`` is ``zweiundvierzig``: the order of tens and units turns round, and words grow together, so it is more than a dictionary.
"""

import functools
import random

from ltcore.data.corpus import Corpus
from ltcore.data.pieces import corpus
from ltcore.errors import PackageMissingError, UsageError

SEED, LARGEST = 0, 99_999
VOCABULARY = 200


def number_words(train: int = 4000, test: int = 200, vocabulary: int = VOCABULARY) -> Corpus:
    """``train`` + ``test`` + ``test`` different numbers below 100,000 (training, validation and test part), the same for everybody.

    Raises:
        UsageError: more numbers than there are. PackageMissingError: package ``num2words`` or ``tokenizers`` is not installed.
    """
    if min(train, test) < 1 or train + 2 * test > LARGEST:
        raise UsageError(f"number-words: train + 2 * test must lie below {LARGEST:,}, both at least 1; got {train} and {test}")
    return _number_words(train, test, vocabulary)


@functools.lru_cache(maxsize=4)
def _number_words(train: int, test: int, vocabulary: int) -> Corpus:
    try:
        from num2words import num2words
    except ImportError as error:
        raise PackageMissingError("data set number-words needs the package num2words: pip install 'lottery-ticket-bench[text]'") from error
    drawn = random.Random(SEED).sample(range(LARGEST + 1), train + 2 * test)
    pairs = [(num2words(n, lang="en"), num2words(n, lang="de")) for n in drawn]
    parts = [pairs[:train], pairs[train : train + test], pairs[train + test :]]
    return corpus("number-words", parts, vocabulary, source="made by num2words")
