"""The flags that make one run different from another, and the name of its manifest."""
from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass

from ltcore.stages import canonical


@dataclass(frozen=True)
class Flags:
    """What the command line says about a run; everything here is in the manifest."""

    scale: str = "quick"
    experiments: tuple[str, ...] = ()
    trials: int | None = None
    levels: int | None = None
    data: str = "auto"
    sets: tuple[str, ...] = ()
    with_file: str | None = None

    def key(self) -> str:
        """A short name for this set of flags, without the place where the data lies."""
        kept = {k: v for k, v in dataclasses.asdict(self).items() if k != "data"}
        return hashlib.sha256(canonical(kept).encode()).hexdigest()[:8]

    @property
    def plain(self) -> bool:
        """Is nothing asked for but a scale?"""
        return self == Flags(self.scale)
