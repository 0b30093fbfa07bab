"""The Ray executor on a local cluster of three nodes, bound to 127.0.0.1: the same table, whatever is killed."""
import concurrent.futures
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import execute
from bench import plan as planning
from bench.flags import Flags
from bench.store import Store
from ltcore.errors import UserError
from replications import registry
from tests.conftest import ROOT, bench, environment
from tests.test_resume import alive, hear_ctrl_c, journal, linux, until

ray = pytest.importorskip("ray")

from bench import ray_executor  # noqa: E402
from bench.ray_executor import RayExecutor, Setup  # noqa: E402

RUN = ("replicate", "frankle2019", "--scale", "smoke", "--experiment", "lenet-mnist", "--levels", "2")
LONGER = ("--set", "lenet-mnist.length=1000it")  # work for some seconds, in which a node can be killed


@pytest.fixture(scope="module")
def cluster() -> Iterator[SimpleNamespace]:
    """Three nodes of one core each, and their address; a driver on this machine joins the head."""
    from ray.cluster_utils import Cluster

    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    node = {"node_ip_address": "127.0.0.1", "object_store_memory": 80 * 2**20}
    made = Cluster(initialize_head=True, head_node_args=node | {"num_cpus": 1, "include_dashboard": False})
    nodes = [made.add_node(num_cpus=1, **node) for _ in range(2)]
    yield SimpleNamespace(made=made, nodes=nodes, address=made.address)
    made.shutdown()
    patch.undo()


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> str:
    """Comparison of the local executor's run, as JSON."""
    done = bench(*RUN, *LONGER, "--store", tmp_path_factory.mktemp("local") / "store", "--json")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_max_time_then_resume_gives_the_local_table_byte_for_byte(cluster, local, tmp_path):
    more = (*LONGER, "--store", tmp_path / "store", "--executor", "ray")
    early = bench(*RUN, *more, "--max-time", "6s", RAY_ADDRESS=cluster.address)
    assert early.returncode == 75 and "run the same command again to go on" in early.stderr and "Traceback" not in early.stderr
    begun = journal(tmp_path / "store")
    late = bench(*RUN, *more, "--json", RAY_ADDRESS=cluster.address)
    assert late.returncode == 0, late.stderr
    compared = bench("compare", "frankle2019", "--scale", "smoke", "--store", tmp_path / "store", "--json")
    assert (late.stdout, compared.stdout) == (local, local)  # and no line of Ray's in it
    after = journal(tmp_path / "store")
    assert after[: len(begun)] == begun and len(set(after)) == len(after) > len(begun)
    assert not list((tmp_path / "store" / "locks").glob("ray-*"))


def at_work(store: Path, nodes: list) -> tuple[Any, int] | None:
    """A node with a worker that holds a stage's lock, and the worker's process id."""
    for node in nodes:
        raylet = node.all_processes["raylet"][0].process.pid
        for pid in map(int, Path(f"/proc/{raylet}/task/{raylet}/children").read_text().split()):
            with contextlib.suppress(OSError):  # it ended while we looked
                held = {fd.resolve() for fd in Path(f"/proc/{pid}/fd").iterdir()}
                if any(path.parent == store / "locks" and not (store / "stages" / path.name).exists() for path in held):
                    return node, pid
    return None


@linux
def test_a_node_killed_in_mid_run_costs_a_retry_and_nothing_else(cluster, local, tmp_path):
    process = start(tmp_path / "store", *LONGER, "--json", RAY_ADDRESS=cluster.address)
    found: list = []
    assert until(lambda: len(journal(tmp_path / "store")) >= 2 and found.extend(at_work(tmp_path / "store", cluster.nodes) or ()) or found, 60)
    node, worker = found
    os.kill(worker, signal.SIGKILL)  # all of a machine's processes end at once when it is switched off
    cluster.made.remove_node(node, allow_graceful=False)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (0, local), err
    assert "its stage starts again" in err and "Traceback" not in err
    assert len(journal(tmp_path / "store")) == len(set(journal(tmp_path / "store")))


@linux
def test_ctrl_c_is_one_line_and_ends_the_cluster_of_this_machine(tmp_path):
    process = start(tmp_path / "store", "--set", "lenet-mnist.length=50000it")
    assert until(lambda: len(journal(tmp_path / "store")) >= 1, 60)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "") and "Traceback" not in err
    assert err.splitlines()[-1] == "stopped; what is done is kept, run the same command again to go on"
    assert until(lambda: not alive(process.pid), 5)


def start(store: Path, *more: str, **env: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "bench", *RUN, *more, "--store", str(store), "--executor", "ray"]
    return subprocess.Popen(command, cwd=ROOT, env=environment(**env), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            start_new_session=True, preexec_fn=hear_ctrl_c)  # fmt: skip


def test_no_cluster_where_one_is_named_is_one_line(tmp_path):
    done = bench(*RUN, "--store", tmp_path / "store", "--executor", "ray", timeout_s=60, RAY_ADDRESS="127.0.0.1:1")
    advice = "start one with 'ray start --head', or unset RAY_ADDRESS to run on this machine"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"error: no Ray cluster answers at RAY_ADDRESS=127.0.0.1:1: {advice}\n")


@pytest.mark.parametrize("address", ["somewhere", "ray://127.0.0.1:1", ":6379"])
def test_addresses_that_name_no_head(address):
    with pytest.raises(UserError, match=f"bad RAY_ADDRESS '{address}'"):
        ray_executor._answering(address)


def test_a_port_that_opens_but_is_no_cluster_is_told_from_one(cluster, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setattr(ray_executor, "ANSWER_S", 0.2)
        with pytest.raises(UserError, match=f"no Ray cluster answers at RAY_ADDRESS=127.0.0.1:{port}"):
            ray_executor._answering(f"127.0.0.1:{port}")
    monkeypatch.undo()
    assert ray_executor._answering(cluster.address) == f"[::ffff:127.0.0.1]:{cluster.address.rpartition(':')[2]}"


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install -c constraints.txt '\.\[ray\]'"), ray_executor._connected(execute.Options()):
        pass


# ---- in this process -----------------------------------------------------------------------------------------
def test_devices_and_workers_are_those_of_the_cluster(monkeypatch):
    have = {"CPU": 24.0, "GPU": 3.0}
    monkeypatch.setattr(ray, "cluster_resources", lambda: have)
    fitted = [ray_executor._fitted(execute.Options(d, 2, stack=128)) for d in ("auto", "cuda", "cpu")]
    assert [(o.device, o.workers, o.stack) for o in fitted] == [("cuda", 3, 128), ("cuda", 3, 128), ("cpu", 24, 1)]
    del have["GPU"]
    assert ray_executor._fitted(execute.Options("auto", 2, stack=128)).device == "cpu"
    with pytest.raises(UserError, match="no node of the Ray cluster has a GPU"):
        ray_executor._fitted(execute.Options("cuda"))
    have["CPU"] = 0.0
    with pytest.raises(UserError, match="no node of the Ray cluster has a CPU"):
        ray_executor._fitted(execute.Options("cpu"))


def test_a_worker_takes_part_only_with_the_same_store_and_code(tmp_path):
    from bench import machine

    setup = Setup(str(tmp_path / "store"), "cpu", None, "auto", "ray-1", machine.source_hash())
    with pytest.raises(UserError, match="no store at"):
        ray_executor._check(setup)
    store = Store(tmp_path / "store")
    with pytest.raises(UserError, match="not the same folder on all nodes"):
        ray_executor._check(setup)
    with store.lock("ray-1") as held:
        assert held and ray_executor._check(setup) is None
        with pytest.raises(UserError, match="the same version on all nodes"):
            ray_executor._check(Setup(setup.root, "cpu", None, "auto", "ray-1", "other"))


NEVER = object()


class Ref:
    """Stands in for Ray's reference: what it comes to is known at once."""

    def __init__(self, value):
        self.made = concurrent.futures.Future()
        if value is NEVER:
            return
        (self.made.set_exception if isinstance(value, ray.exceptions.RayError) else self.made.set_result)(value)

    def future(self):
        return self.made


class Actor:
    """Stands in for a handle: ``Actor.begins`` and ``Actor.calls`` say what the next setups and calls come to."""

    begins: list = []
    calls: list = []

    def __init__(self):
        self.begin = SimpleNamespace(remote=lambda setup: Ref(self.begins.pop(0) if self.begins else None))
        self.ping = SimpleNamespace(remote=lambda: Ref(None))
        self.call = SimpleNamespace(remote=lambda function, *args: Ref(self.calls.pop(0) if self.calls else function(*args)))


@pytest.fixture
def executor(monkeypatch):
    """Makes an executor on stand-ins for actors."""
    made = []

    def make(slots=1, begins=(), calls=()):
        Actor.begins, Actor.calls = list(begins), list(calls)
        monkeypatch.setattr(ray, "remote", lambda **needs: lambda body: SimpleNamespace(remote=Actor))
        monkeypatch.setattr(ray, "kill", lambda actor: None)
        made.append(RayExecutor(slots, {"num_cpus": 1}, Setup("", "cpu", None, "auto", "", "")))
        return made[-1]

    yield make
    for one in made:
        one.shutdown()


DEAD = ray.exceptions.ActorDiedError()


def test_a_stage_is_tried_four_times_and_the_others_go_on(executor, capsys):
    pool = executor(1, calls=[DEAD] * 3)
    assert pool.submit(abs, -5).result(5) == 5
    assert capsys.readouterr().err.count("its stage starts again") == 3
    pool = executor(1, calls=[DEAD] * 4)
    assert pool.submit(abs, -5).result(5) == "its worker process died 4 times (out of memory?)"
    assert pool.submit(abs, -6).result(5) == 6


def test_a_worker_that_cannot_take_part_is_left_out_and_none_left_ends_the_run(executor, capsys):
    pool = executor(2, begins=["node a: other store", None])
    assert [pool.submit(abs, -n).result(5) for n in (3, 4)] == [3, 4]
    assert "note: a worker can't take part: node a: other store" in capsys.readouterr().err
    pool = executor(2, begins=["node a: other store", "node b: other store"])
    with pytest.raises(concurrent.futures.BrokenExecutor, match="node b: other store"):
        pool.submit(abs, -5).result(5)
    assert executor(1, begins=[DEAD] * 3).submit(abs, -5).result(5) == 5
    with pytest.raises(concurrent.futures.BrokenExecutor, match="ActorDiedError"):
        executor(1, begins=[DEAD] * 4).submit(abs, -5).result(5)


def test_what_no_worker_has_begun_can_be_given_up(executor):
    assert executor(1, begins=[NEVER]).submit(abs, -5).cancel()
    pool = executor(1, begins=[None, NEVER], calls=[DEAD])  # its worker dies, and the next has no place
    future = pool.submit(abs, -5)
    assert until(future.running, 5) and until(future.cancel, 5)


def test_max_time_holds_on_a_cluster_that_has_no_place(tmp_path, monkeypatch):
    @contextlib.contextmanager
    def busy(plan, store, options):
        yield SimpleNamespace(submit=lambda *call: concurrent.futures.Future()), options

    monkeypatch.setattr(execute, "_pool", busy)
    plan = planning.make(registry.load("frankle2019"), Flags("smoke", ("lenet-mnist",), levels=1))
    outcome = execute.execute(plan, Store(tmp_path), execute.Options(max_time_s=0.3))
    assert (outcome.stopped, outcome.failures, outcome.computed) == (True, {}, 0)


def test_errors_keep_their_kind(executor):
    from ray.exceptions import RayTaskError

    with pytest.raises(UserError, match="^bad data$"):
        executor(1, calls=[UserError("bad data")]).submit(abs, 1).result(5)
    with pytest.raises(ZeroDivisionError):
        executor(1, calls=[RayTaskError("call", "text", ZeroDivisionError())]).submit(abs, 1).result(5)
