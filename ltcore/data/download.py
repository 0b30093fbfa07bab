"""Download through torchvision into a folder, giving up within seconds on a machine without network."""

import fcntl
import functools
import http.client
import logging
import os
import socket
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ltcore.data.files import FileSet, locate, missing
from ltcore.data.torchvision_compat import torchvision_datasets
from ltcore.errors import UserError

PROBE_S = 6.0  # for all mirrors together; a name server that never answers is not bound by a socket's timeout
STALL_S = 10.0  # without a byte while downloading
_log = logging.getLogger(__name__)


def download(source: FileSet, root: Path, again: bool = False) -> None:
    """Puts the set's files under `root`, one process at a time, each file whole or not at all; `again` replaces files that are there.

    Raises UserError saying why it could not.
    """
    datasets = torchvision_datasets()
    base = getattr(datasets, source.torchvision_name)
    mirrors = _mirrors(base)
    alive = reachable(list(mirrors))
    if not alive:
        raise UserError(f"{source.label} cannot be downloaded: no answer from {', '.join(mirrors)}")
    chosen = type(base.__name__, (base,), {"mirrors": [mirrors[url] for url in alive]})  # the name is the folder it writes
    try:
        root.mkdir(parents=True, exist_ok=True)
        with locked(root / f".{source.torchvision_name}.lock"), tempfile.TemporaryDirectory(dir=root, prefix=".part-") as scratch:
            if again or missing(source, locate(source, root)):
                with _socket_timeout(STALL_S):
                    for split in source.splits or (None,):
                        chosen(scratch, download=True, **({} if split is None else {"split": split}))
                _move(source, Path(scratch), root)
    except (OSError, RuntimeError, EOFError, http.client.HTTPException) as error:  # URLError is an OSError
        raise UserError(f"{source.label} cannot be downloaded: {str(error).splitlines()[0] if str(error) else type(error).__name__}") from error


@functools.cache
def download_once(source: Any, root: Path, how: Callable[[Any, Path], None] = download) -> str:
    """As `how`, but a second call in this process returns the first one's answer: "" when the files are there, else why not."""
    try:
        how(source, root)
    except UserError as error:
        _log.warning("%s", error)
        return str(error)
    return ""


def _mirrors(base: type) -> dict[str, str]:
    """A small file to ask for -> the mirror that has it."""
    if hasattr(base, "mirrors"):
        return {mirror + base.resources[-1][0]: mirror for mirror in base.mirrors}
    if hasattr(base, "split_list"):  # SVHN's, without mirrors
        return {base.split_list["test"][0]: base.split_list["test"][0]}
    return {base.url: base.url}


def _move(source: FileSet, scratch: Path, root: Path) -> None:
    (root / source.folder).mkdir(parents=True, exist_ok=True)
    for name in source.files:
        os.replace(scratch / source.folder / name, root / source.folder / name)


def reachable(urls: Sequence[str]) -> list[str]:
    """Those of `urls` that answer within PROBE_S, in their order."""
    return [url for url, answers in zip(urls, _in_time([functools.partial(_answers, url) for url in urls], PROBE_S)) if answers]


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=PROBE_S - 1):
            return True
    except (OSError, http.client.HTTPException, ValueError) as error:
        _log.info("%s: %s", url, error)
        return False


def _in_time(calls: Sequence[Callable[[], bool]], limit_s: float) -> list[bool]:
    """What the calls return, run side by side; False for one that is not back in time. Daemon threads, so that a hanging one ends with us."""
    results = [False] * len(calls)

    def work(i: int) -> None:
        results[i] = calls[i]()

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(len(calls))]
    deadline = time.monotonic() + limit_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return list(results)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time."""
    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # dies with its process
        yield


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """torchvision opens its connections without a timeout; the default of new sockets is the only handle."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
