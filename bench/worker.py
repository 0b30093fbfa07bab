"""What a worker process does: take a stage's lock, load its inputs, run it, put the result into the store."""
from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
import hashlib
import json
import math
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench import energy, machine
from bench.store import Store

CHECKPOINT_S = 30.0  # a long stage saves itself about so often
ORPHAN_S = 0.5  # how often a worker looks whether its parent still lives


@dataclass(frozen=True)
class Task:
    """Stages to run as one: (hash, description), which artefacts of each to keep, and when to stop (seconds since the epoch).

    ``known`` had their records when the task was made; they run again only for an artefact.
    """

    stages: Sequence[tuple[str, Mapping[str, Any]]]
    keep: Mapping[str, Sequence[str]]
    deadline: float | None = None
    known: Sequence[str] = ()


class Taken(enum.Enum):
    """How a task ended when it did not fail."""

    DONE = "done"
    ELSEWHERE = "elsewhere"  # another program holds one of its stages
    STOPPED = "stopped"
    LOST = "lost"  # another program finished with what this task needs or makes, and dropped it: plan anew


_world: dict[str, Any] = {}


def begin(parent: int, root: str, device: str, with_file: str | None, data: str) -> None:
    """Sets a process up: threads, store, library. Called once per process."""
    import torch

    from ltcore.library import load as load_library

    if device == "cpu":
        torch.set_num_threads(1)
    _world.update(store=Store(root), device=device, library=load_library(with_file), data=data)
    if parent != os.getpid():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    """A worker whose parent was killed would wait for work for ever, and hold its locks."""
    while os.getppid() == parent:
        time.sleep(ORPHAN_S)
    os._exit(1)


def work(task: Task) -> Taken | str:
    """Runs a task; a failure that is not the user's to mend comes back as one line."""
    store: Store = _world["store"]
    with contextlib.ExitStack() as locks:
        if not all(locks.enter_context(store.lock(h)) for h, _ in task.stages):
            return Taken.ELSEWHERE
        if all(store.has(h) and all(store.has(h, a) for a in task.keep[h]) for h, _ in task.stages):
            return Taken.DONE
        if any(store.has(h) and h not in task.known for h, _ in task.stages) or not _inputs_there(task, store):
            return Taken.LOST
        return _run(task, store)


def _inputs_there(task: Task, store: Store) -> bool:
    return all(store.has(*ref) for _, described in task.stages for ref in described["inputs"].values())


def _run(task: Task, store: Store) -> Taken | str:
    import torch

    from ltcore.errors import UserError
    from ltcore.kinds import Env, Job, run
    from ltcore.training.loop import Stopped

    meter = _Meter(_world["device"])
    try:
        jobs = [Job(d["kind"], d["params"], {role: store.load(*ref) for role, ref in d["inputs"].items()}) for _, d in task.stages]
        results = run(jobs, Env(_world["library"], _data, _world["device"], _checkpoints(task, store, meter)))
    except Stopped:
        return Taken.STOPPED
    except UserError:
        if not _inputs_there(task, store):  # dropped by another program since they were looked for
            return Taken.LOST
        raise
    except torch.cuda.OutOfMemoryError as error:
        return f"out of GPU memory with {_stack(len(task.stages))} ({error})".splitlines()[0]
    except Exception as error:  # one stage's defect must not take the others down; the line and the log say which
        if isinstance(error, MemoryError) or NO_MEMORY in str(error):
            return f"out of memory with {_stack(len(task.stages))} ({error})".splitlines()[0]
        return _defect(store, task, error)
    made_by = {**machine.facts(_world["device"]), "stack": len(jobs), **meter.told(len(jobs))}
    for (stage_hash, described), result in zip(task.stages, results):
        record = {
            "stage": described, "values": [dataclasses.asdict(v) for v in result.values], "curves": dict(result.curves),
            "facts": dict(result.facts), "machine": made_by,
        }  # fmt: skip
        store.commit(stage_hash, record, {a: t for a, t in result.artefacts.items() if a in task.keep[stage_hash] or described["kind"] in KEPT})
    store.drop_checkpoint(_checkpoint_name(task))
    return Taken.DONE


NO_MEMORY = "DefaultCPUAllocator: "  # what torch says, in a RuntimeError, when there is none for a tensor
KEPT = ("init", "prune")  # small, and what a ticket is made of


def _stack(n: int) -> str:
    if n > 1:
        return f"{n} replicates in one stack"
    return "one replicate: --set EXPERIMENT.batch_size=… or EXPERIMENT.precision=bf16 needs less, a larger machine has more"


def _defect(store: Store, task: Task, error: Exception) -> str:
    import traceback

    log = store.root / "failures.log"
    with store.errors(), open(log, "a", encoding="utf-8") as file:
        file.write(f"{task.stages[0][0]}\n{''.join(traceback.format_exception(error))}\n")
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'} (details in {log})"


@functools.cache
def _loaded(name: str, options_json: str) -> Any:
    from ltcore import data
    from ltcore.library import of_user

    library, options = _world["library"], json.loads(options_json)
    if name in library.datasets:
        with of_user(f"data set {name!r} failed", library.file):
            found = data.from_user(name, library.datasets[name](**options))
    else:
        found = data.load(name, _world["data"], **options)
    return found.to(_world["device"])


def _data(params: Mapping[str, Any]) -> Any:
    """The data set of a training stage; it must be the one that the plan saw."""
    from ltcore.errors import UserError

    found = _loaded(params["name"], json.dumps(params["options"], sort_keys=True))
    if found.fingerprint != params["fingerprint"]:
        raise UserError(f"data set {params['name']} changed since this run was planned: run the same command again")
    return found


def _checkpoint_name(task: Task) -> str:
    """Of a stack only the same stack, in the same order, can go on from its checkpoint."""
    hashes = [h for h, _ in task.stages]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256(" ".join(hashes).encode()).hexdigest()


SPENT = "spent"  # in a checkpoint: seconds and joules so far, NaN where a sitting had no counter


class _Meter:
    """Seconds and joules of a task over all the sittings in which it was trained.

    A checkpoint keeps what was spent until then. What a sitting that was killed did after its last checkpoint is lost and done again,
    so it counts once, as does all of a stage that can't save itself.
    """

    def __init__(self, device: str):
        self.device, self.started_s, self.started_J = device, time.monotonic(), energy.joules(device)
        self.before_s, self.before_J = 0.0, 0.0

    def read(self) -> tuple[float, float]:
        now_J = energy.joules(self.device)
        here_J = math.nan if self.started_J is None or now_J is None else now_J - self.started_J
        return self.before_s + time.monotonic() - self.started_s, self.before_J + here_J

    def told(self, shares: int) -> dict[str, float]:
        """What a record says of it: seconds, and where there was a counter throughout joules, of one of ``shares`` replicates."""
        wall_s, joules = self.read()
        return {"wall_s": round(wall_s / shares, 3), **energy.spent(0.0, None if math.isnan(joules) else joules, shares)}

    def packed(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """A checkpoint's tensors, and what was spent."""
        import torch

        return {**tensors, SPENT: torch.tensor(self.read(), dtype=torch.float64)}

    def unpacked(self, saved: dict[str, Any] | None) -> dict[str, Any] | None:
        """Goes on from what earlier sittings spent; the rest is the training's own. Of an older checkpoint neither is known."""
        if saved is None:
            return None
        own = dict(saved)
        self.before_s, self.before_J = own.pop(SPENT).tolist() if SPENT in own else (0.0, math.nan)
        return own


def _checkpoints(task: Task, store: Store, meter: _Meter) -> Any:
    from ltcore.training.loop import Checkpoints

    name, last = _checkpoint_name(task), [time.monotonic()]

    def due() -> bool:
        return time.monotonic() - last[0] > CHECKPOINT_S

    def save(tensors: Mapping[str, Any]) -> None:
        store.save_checkpoint(name, meter.packed(tensors))
        last[0] = time.monotonic()

    def load() -> dict[str, Any] | None:
        return meter.unpacked(store.load_checkpoint(name))

    return Checkpoints(load, save, due, lambda: task.deadline is not None and time.time() > task.deadline)
