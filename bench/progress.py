"""How far a run is: a bar with the time left on a terminal, plain lines in a log. On stderr, so that stdout holds results alone."""
from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from bench import duration

if TYPE_CHECKING:
    from bench.execute import Progress

LINE_EVERY_S = 15.0


class Reporter:
    """Called with every progress; a context manager that closes the bar."""

    def __init__(self, title: str):
        self.title, self.last, self.bar, self.task = title, 0.0, None, None

    def __enter__(self) -> Reporter:
        if sys.stderr.isatty():
            self._open()
        return self

    def _open(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"))
        self.bar = Progress(*columns, console=Console(stderr=True))
        self.task = self.bar.add_task(self.title, text="starting", total=None)
        self.bar.start()

    def __exit__(self, *exc: Any) -> None:
        if self.bar is not None:
            self.bar.stop()

    def __call__(self, p: Progress) -> None:
        eta = f"about {duration.text(p.eta_s)} left" if p.eta_s is not None else "no estimate yet"
        text = f"{p.done_it:,} of {p.total_it:,} iterations, {p.done} of {p.total} stages, {eta}"
        if self.bar is not None:
            self.bar.update(self.task, total=max(p.total_it, 1), completed=p.done_it, text=text)
        elif time.monotonic() - self.last > LINE_EVERY_S or p.done == p.total:
            self.last = time.monotonic()
            print(f"{self.title}: {text}", file=sys.stderr, flush=True)
