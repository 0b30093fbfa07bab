"""The user's cache folder, where downloads and made data sets are kept."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/ltcore, else ~/.cache/ltcore. Not created here."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "ltcore"
