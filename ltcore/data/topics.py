"""The Python documentation's topics, English text that every installation of Python has: what stands in for a corpus of text."""

import functools
from typing import Any

from ltcore.data.corpus import Corpus
from ltcore.data.words import corpus

EVERY = 10  # of ten lines eight are for training, then one for validation and one for test


def topics(**options: Any) -> Corpus:
    """``pydoc_data.topics``, split at white space. It changes with the version of Python, and so does the fingerprint."""
    return _topics(tuple(sorted(options.items())))


@functools.lru_cache(maxsize=4)
def _topics(options: tuple[tuple[str, int], ...]) -> Corpus:
    from pydoc_data.topics import topics as pages

    lines = [line for page in sorted(pages) for line in pages[page].splitlines() if line.strip()]
    blocks = {"valid": EVERY - 2, "test": EVERY - 1}
    texts = {part: [line for i, line in enumerate(lines) if i // 20 % EVERY == block] for part, block in blocks.items()}
    texts["train"] = [line for i, line in enumerate(lines) if i // 20 % EVERY not in blocks.values()]
    return corpus("topics", texts, dict(options), source="shipped with Python (pydoc_data.topics)")
