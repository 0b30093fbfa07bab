"""How far a run is: a bar with the time left on a terminal, plain lines in a log. On stderr, so that stdout holds results alone."""
from __future__ import annotations

import math
import sys
import time
from typing import TYPE_CHECKING, Any

from bench import duration

if TYPE_CHECKING:
    from bench.pace import Progress

BAR_EVERY_S, LINE_EVERY_S = 1.0, 15.0
TEXT = len("1234 of 5678 stages, about 12 min 34 s left")


class Reporter:
    """Called with every progress; a context manager that closes the bar."""

    def __init__(self, title: str):
        self.title, self.started, self.bar, self.task = title, time.monotonic(), None, None
        self.last = -math.inf

    def __enter__(self) -> Reporter:
        if sys.stderr.isatty():
            self._open()
        return self

    def _open(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        text = TextColumn("{task.fields[text]}", table_column=Column(no_wrap=True, min_width=TEXT))  # a narrow terminal cuts the title
        columns = (TextColumn("{task.description}"), BarColumn(), text)
        self.bar = Progress(*columns, console=Console(stderr=True))
        self.task = self.bar.add_task(self.title, text="starting", total=None)
        self.bar.start()

    def __exit__(self, *exc: Any) -> None:
        if self.bar is not None:
            self.bar.stop()

    def __call__(self, p: Progress) -> None:
        if time.monotonic() - self.last < (BAR_EVERY_S if self.bar else LINE_EVERY_S) and p.done < p.total:
            return
        self.last, left_s = time.monotonic(), p.eta_s
        text = f"{p.done} of {p.total} stages, {'no estimate yet' if left_s is None else f'about {duration.text(left_s)} left'}"
        if self.bar is None:
            print(f"{self.title}: {text}", file=sys.stderr, flush=True)
        else:
            spent_s = self.last - self.started
            self.bar.update(self.task, total=None if left_s is None else spent_s + left_s, completed=spent_s, text=text)
