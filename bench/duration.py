"""Durations on the command line."""
from __future__ import annotations

import re

from ltcore.errors import UsageError

_UNITS = {"s": 1, "m": 60, "h": 3600}
_DURATION = re.compile(r"^(\d+(?:\.\d+)?)(s|m|h)$")


def seconds(text: str) -> float:
    """``"90s"``, ``"9m"`` or ``"1.5h"`` in seconds.

    Raises:
        UsageError: the text is none of these.
    """
    found = _DURATION.match(text.strip())
    if not found:
        raise UsageError(f"bad duration {text!r}: write 90s, 9m or 1.5h")
    return float(found[1]) * _UNITS[found[2]]


def text(seconds_: float) -> str:
    """A duration for people, to the second below an hour."""
    s = int(round(seconds_))
    return f"{s} s" if s < 60 else f"{s // 60} min {s % 60:02d} s" if s < 3600 else f"{s // 3600} h {s % 3600 // 60:02d} min"
