"""Tables for a terminal, whose cells stand as they were written: tabulate takes "0.10" for the number 0.1, and fails on "1,920" in a column
of limited width, ``disable_numparse`` or not."""
from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

BOXES = "simple_grid"


def grid(rows: Iterable[Sequence[Any]], headers: Sequence[str], widths: Sequence[int | None] | int | None = None, tablefmt: str = "simple") -> str:
    """The rows as text; columns of numbers (not of text that looks like one) are flushed right.

    Args:
        rows: cells of any kind; None is empty.
        widths: characters beyond which the cells of a column are wrapped, one for each column or one for all; None for no limit.
    """
    from tabulate import tabulate

    lines = [list(row) for row in ([headers] if headers else []) + list(rows)]
    columns = list(zip(*lines[bool(headers) :], strict=True))
    align = ["right" if all(isinstance(cell, (int, float)) for cell in column) else "left" for column in columns]
    limits = widths if isinstance(widths, Sequence) else [widths] * len(lines[0]) if lines else []
    shown = [[_wrapped(cell, width) for cell, width in zip(line, limits, strict=True)] for line in lines]
    return tabulate(shown, "firstrow" if headers else (), tablefmt, disable_numparse=True, colalign=align or None)


def of_keys(rows: Sequence[Mapping[str, Any]], widths: Sequence[int | None] | int | None = None) -> str:
    """The same of rows that name their cells; nothing of no rows."""
    return grid([list(row.values()) for row in rows], list(rows[0]), widths) if rows else ""


def _wrapped(cell: Any, width: int | None) -> str:
    text = "" if cell is None else str(cell)
    return text if width is None else "\n".join(part for line in text.splitlines() for part in textwrap.wrap(line, width))
