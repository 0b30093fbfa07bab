"""Stages on a Ray cluster: the one that ``RAY_ADDRESS`` names, else one started on this machine for the run.

Ray places the workers, an actor a GPU or a core, and tells when one died. Which stage comes next is decided in ``bench.execute``.
A worker that dies is replaced, and its stage is handed out again.
"""
from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import logging
import os
import queue
import socket
import sys
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.store import Store
from ltcore.errors import UserError

if TYPE_CHECKING:
    from bench.execute import Options
    from bench.plan import Plan

MOST_TRIES = 4  # the first and three more
ANSWER_S = 5.0  # a cluster's port that does not open within this is not there
LOCALHOST = ("localhost", "127.0.0.1", "::1")
LOOPBACK = "[::ffff:127.0.0.1]"  # Ray takes 127.0.0.1 for the machine's outward address, where a cluster bound to loopback does not listen
QUIET = {"RAY_USAGE_STATS_ENABLED": "0"}
# A port that opens and is no Ray cluster: Ray would ask it for ten minutes and more.
PATIENCE = {"RAY_gcs_server_port_wait_time_s": "1", "RAY_py_gcs_connect_timeout_s": "3", "RAY_gcs_rpc_server_connect_timeout_s": "2"}


@dataclass(frozen=True)
class Setup:
    """What a worker needs to know. ``lock`` is held in the store by the program that hands out the stages."""

    root: str
    device: str
    with_file: str | None
    data: str
    lock: str
    source_hash: str


class Worker:
    """Runs in a worker process, as a Ray actor. Errors of the user's come back as values: raised, Ray would wrap their text."""

    def begin(self, setup: Setup) -> str | None:
        """Sets the process up; why it can't take part, or None."""
        from bench import worker

        try:
            _check(setup)
            worker.begin(os.getppid(), setup.root, setup.device, setup.with_file, setup.data)  # the parent is Ray's daemon on this node
        except UserError as error:
            return f"{socket.gethostname()}: {error}"

    def ping(self) -> None:
        """Answers if it lives."""

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        try:
            return function(*args)
        except UserError as error:
            return error


def _check(setup: Setup) -> None:
    """Same code and same store as where the stages are handed out, and a lock that is held there is held here."""
    from bench import machine

    if machine.source_hash() != setup.source_hash:
        raise UserError("the code here is not that of the machine that hands out the stages: put the same version on all nodes")
    with Store(setup.root, create=False).lock(setup.lock) as free:
        if free:
            raise UserError(f"{setup.root} is not the same folder on all nodes, or has no file locks across them: name a shared one with --store")


class _Future(concurrent.futures.Future):
    """One that waits again, after its worker died, can be given up like one that was never begun."""

    waits_again = False

    def cancel(self) -> bool:
        return super().cancel() or self.waits_again


@dataclass(eq=False)
class _Job:
    future: _Future
    call: tuple[Any, ...]
    tries: int = 0


class RayExecutor(concurrent.futures.Executor):
    """``submit`` as of a process pool, on ``slots`` actors. One thread owns the state; everything that happens reaches it as an event.

    Args:
        slots: number of workers. needs: what Ray reserves for each, and its environment (``ray.remote``'s options).
    """

    def __init__(self, slots: int, needs: dict[str, Any], setup: Setup):
        import ray

        self.slots, self._setup, self._actor = slots, setup, ray.remote(**needs)(Worker)
        self._events: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._waiting: deque[_Job] = deque()
        self._idle: list[Any] = []
        self._actors: set[Any] = set()
        self._left_out: list[str] = []  # why, for each worker that can't take part
        for _ in range(slots):
            self._events.put(self._start)
        self._thread = threading.Thread(target=self._run, name="ray-executor", daemon=True)
        self._thread.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> concurrent.futures.Future:
        job = _Job(_Future(), (fn, *args))
        self._events.put(partial(self._queue, job))
        return job.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Ends all workers at once; what still runs is given up, as a stage's lock dies with its process."""
        self._events.put(self._dismiss)
        self._events.put(None)
        self._thread.join()

    # ---- everything below runs in the executor's thread ----------------------------------------------------------
    def _run(self) -> None:
        while (event := self._events.get()) is not None:
            try:
                event()
            except Exception as error:  # the connection to Ray is gone, or a defect here: whoever waits must hear of it
                self._left_out += [f"{type(error).__name__}: {error}"] * self.slots
                self._give_up()

    def _on(self, ref: Any, then: Callable[[concurrent.futures.Future], None]) -> None:
        ref.future().add_done_callback(lambda told: self._events.put(partial(then, told)))

    def _start(self, deaths: int = 0) -> None:
        actor = self._actor.remote()
        self._actors.add(actor)
        self._on(actor.begin.remote(self._setup), partial(self._began, actor, deaths))

    def _began(self, actor: Any, deaths: int, told: concurrent.futures.Future) -> None:
        """Set up, or answered a ping."""
        error = told.exception()
        why = _last_line(error) if error else told.result()
        if why is None:
            return self._give(actor)
        self._end(actor)
        if error and deaths + 1 < MOST_TRIES:
            return self._start(deaths + 1)
        if why not in self._left_out:
            print(f"note: a worker can't take part: {why}", file=sys.stderr, flush=True)
        self._left_out.append(why)
        self._give_up()

    def _give_up(self) -> None:
        """Where no worker is left, nothing that waits will ever run."""
        while len(self._left_out) >= self.slots and self._waiting:
            job = self._waiting.popleft()
            if job.tries or job.future.set_running_or_notify_cancel():
                job.future.set_exception(concurrent.futures.BrokenExecutor(f"no worker on the Ray cluster can take part: {self._left_out[-1]}"))

    def _queue(self, job: _Job) -> None:
        self._waiting.append(job)
        self._give_up()
        if self._idle:
            self._give(self._idle.pop())

    def _give(self, actor: Any) -> None:
        """The next job for a free worker."""
        while self._waiting:
            job = self._waiting.popleft()
            if job.tries or job.future.set_running_or_notify_cancel():
                job.tries, job.future.waits_again = job.tries + 1, False
                return self._on(actor.call.remote(*job.call), partial(self._done, actor, job))
        self._idle.append(actor)

    def _done(self, actor: Any, job: _Job, told: concurrent.futures.Future) -> None:
        from ray.exceptions import RayTaskError

        error = told.exception()
        if error is not None and not isinstance(error, RayTaskError):
            return self._died(actor, job, error)
        value = told.result() if error is None else error.cause
        (job.future.set_exception if isinstance(value, BaseException) else job.future.set_result)(value)
        self._give(actor)

    def _died(self, actor: Any, job: _Job, error: BaseException) -> None:
        """The worker died, perhaps with its node, and perhaps idle ones with it: they are asked before they get anything."""
        self._end(actor)
        again = job.tries < MOST_TRIES
        print(f"note: a worker died{', its stage starts again' if again else ''} ({_last_line(error)})", file=sys.stderr, flush=True)
        if again:
            job.future.waits_again = True
            self._waiting.appendleft(job)
        else:
            job.future.set_result(f"its worker process died {job.tries} times (out of memory?)")
        idle, self._idle = self._idle, []
        for other in idle:
            self._on(other.ping.remote(), partial(self._began, other, 0))
        self._start()

    def _end(self, actor: Any) -> None:
        import ray

        self._actors.discard(actor)
        ray.kill(actor)

    def _dismiss(self) -> None:
        for actor in list(self._actors):
            self._end(actor)
        for job in self._waiting:
            job.future.cancel()


def _last_line(error: BaseException) -> str:
    """The line of one of Ray's errors that says what happened, cut to a readable length."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else 'no message'}"[:200]


# ---- the cluster ---------------------------------------------------------------------------------------------
@contextlib.contextmanager
def pool(plan: Plan, store: Store, options: Options) -> Iterator[tuple[RayExecutor, Options]]:
    """An executor on the cluster, and the options with the device and number of workers that the cluster has.

    Raises:
        UserError: Ray is not installed, no cluster answers, or it has no GPU where one is asked for.
    """
    from bench import machine

    lock = f"ray-{uuid.uuid4().hex}"
    # Ray prints its messages to stdout, which is for results alone.
    with contextlib.redirect_stdout(sys.stderr), _connected(options), store.lock(lock):
        try:
            fitted = _fitted(options)
            setup = Setup(str(store.root.resolve()), fitted.device, plan.flags.with_file, _absolute(plan.flags.data), lock, machine.source_hash())
            with RayExecutor(fitted.workers, _needs(fitted.device), setup) as executor:
                yield executor, fitted
        finally:
            (store.root / "locks" / lock).unlink(missing_ok=True)


def _needs(device: str) -> dict[str, Any]:
    """What Ray reserves for a worker, and its environment: this code, one thread on CPU, the data folder."""
    code = str(Path(__file__).resolve().parent.parent)
    env = {"PYTHONPATH": os.pathsep.join(filter(None, [code, os.environ.get("PYTHONPATH")]))}
    env |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"} if device == "cpu" else {}
    env |= {k: str(Path(os.environ[k]).resolve()) for k in ("LTCORE_DATA", "XDG_CACHE_HOME") if os.environ.get(k)}
    return {"num_cpus": 1, "num_gpus": int(device == "cuda"), "max_restarts": 0, "runtime_env": {"env_vars": env}}


def _absolute(data: str) -> str:
    return data if data in ("auto", "local") else str(Path(data).resolve())


def _fitted(options: Options) -> Options:
    import ray

    have = ray.cluster_resources()
    gpus = int(have.get("GPU", 0))
    if options.device == "cuda" and not gpus:
        raise UserError("no node of the Ray cluster has a GPU: use --device cpu")
    device = "cuda" if gpus and options.device != "cpu" else "cpu"
    workers = gpus if device == "cuda" else int(have.get("CPU", 0))
    if not workers:
        raise UserError("no node of the Ray cluster has a CPU for workers: start nodes with 'ray start --num-cpus N'")
    return dataclasses.replace(options, device=device, workers=workers, stack=options.stack if device == "cuda" else 1)


@contextlib.contextmanager
def _connected(options: Options) -> Iterator[None]:
    named = os.environ.get("RAY_ADDRESS", "")
    for name, value in (QUIET | (PATIENCE if named else {})).items():
        os.environ.setdefault(name, value)  # Ray reads them when it is imported
    try:
        import ray
    except ImportError as error:
        raise UserError("Ray is not installed: pip install -c constraints.txt '.[ray]'") from error
    logging.getLogger("ray").setLevel(logging.ERROR)
    with contextlib.ExitStack() as stack:
        address = _answering(named) if named not in ("", "local") else stack.enter_context(_own(options))
        stack.callback(ray.shutdown)
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # Ray raises many kinds: no answer, another protocol, another version of Ray or Python
            raise UserError(f"can't connect to a Ray cluster at {named or 'this machine'} ({_last_line(error)}); {ADVICE}") from error
        yield


ADVICE = "start one with 'ray start --head', or unset RAY_ADDRESS to run on this machine"


def _answering(named: str) -> str:
    """The address of a cluster whose port opens, in a form that Ray connects to."""
    import ray

    if named == "auto":
        return named
    host, _, port = named.rpartition(":")
    if not host or not port.isdigit() or "://" in named:
        raise UserError(f"bad RAY_ADDRESS {named!r}: use host:port of the cluster's head, such as 10.0.0.1:6379, on a machine of the cluster")
    host = host.strip("[]")
    found = [f"{ray.util.get_node_ip_address()}:{port}", f"{LOOPBACK}:{port}"] if host in LOCALHOST else [named]
    for address in found:
        if _speaks_grpc(address.rpartition(":")[0].strip("[]"), int(port)):
            return address
    raise UserError(f"no Ray cluster answers at RAY_ADDRESS={named}: {ADVICE}")


def _speaks_grpc(host: str, port: int) -> bool:
    """Does a gRPC server listen there? It answers an HTTP/2 client's first words with a SETTINGS frame (RFC 9113, section 3.4)."""
    settings = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # length 0, type 4, no flags, stream 0
    try:
        with socket.create_connection((host, port), timeout=ANSWER_S) as connection:
            if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):  # then it would not answer words in the clear
                return True
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)
            return connection.recv(9)[3:4] == settings[3:4]
    except (OSError, OverflowError):  # nothing there, silence, or a port number that can't be
        return False


@contextlib.contextmanager
def _own(options: Options) -> Iterator[str]:
    """A cluster of one node on this machine that nothing outside can reach; ``ray.init`` alone would listen on all interfaces."""
    import torch
    from ray.cluster_utils import Cluster

    gpus = torch.cuda.device_count() if options.device != "cpu" else 0
    head = {"node_ip_address": "127.0.0.1", "num_cpus": max(options.workers, gpus), "num_gpus": gpus, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield f"{LOOPBACK}:{cluster.address.rpartition(':')[2]}"
    finally:
        cluster.shutdown()
