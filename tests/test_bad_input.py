"""Bad input: one clear line on stderr that says what to do, the right exit code (2: the call is wrong, 1: all else), nothing lost."""
import errno
import json
import os
import pickle
import resource
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench import __main__ as program
from bench.store import Store, StoreError
from ltcore import tickets
from tests.conftest import ROOT, Smoke, environment
from tests.conftest import bench as run_bench

SMOKE = ("replicate", "frankle2019", "--scale", "smoke", "--experiment", "lenet-mnist")
QUICK = ("replicate", "frankle2019", "--scale", "quick", "--experiment", "lenet-mnist")


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """``python -m bench`` in this process, which has torch loaded already: (exit code, stdout, stderr)."""
    monkeypatch.delenv("LTCORE_DATA", raising=False)
    monkeypatch.setenv("LTCORE_STORE", str(tmp_path / "default-store"))

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["bench", *map(str, args)])
        with pytest.raises(SystemExit) as left:
            program.main()
        return left.value.code, *capsys.readouterr()

    return run


def refused(result: tuple[int, str, str], code: int, *words: str) -> None:
    """Nothing on stdout, one line on stderr with these words."""
    exit_code, out, err = result
    assert (exit_code, out) == (code, ""), err
    assert err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n")
    for word in words:
        assert word in err


def failed(done: subprocess.CompletedProcess, *words: str, code: int = 1) -> str:
    """A run that got under way and failed: one line begins "error: ", no traceback."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == code and len(lines) == 1 and "Traceback" not in done.stderr, done.stderr
    for word in words:
        assert word in lines[0]
    return lines[0]


# ---- the call is wrong ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(("args", "words"), [
    (("replicat", "frankle2019"), ("Did you mean 'replicate'",)),
    (("replicate",), ("Missing argument 'PAPER'", "replicate --help")),
    (("replicate", "frankle2019", "--nope"), ("No such option: --nope",)),
    (("replicate", "frankle2018"), ("did you mean 'frankle2019'?",)),
    (("compare", "frankle2018"), ("did you mean 'frankle2019'?",)),
    (("explain", "frankle2018"), ("did you mean 'frankle2019'?",)),
    (("status", "frankle2018"), ("did you mean 'frankle2019'?",)),
    (("replicate", "lee2019"), ("data only",)),
    (("replicate", "frankle2019", "--scale", "smok"), ("did you mean 'smoke'?",)),
    (("replicate", "frankle2019", "--device", "gpu"), ("auto, cpu or cuda",)),
    (("replicate", "frankle2019", "--executor", "dask"), ("use local or ray",)),
    (("replicate", "frankle2019", "--keep", "none"), ("needed or all",)),
    (("replicate", "frankle2019", "--trials", "0"), ("--trials",)),
    (("replicate", "frankle2019", "--levels", "many"), ("--levels",)),
    (("export", "frankle2019"), ("Missing option '--format'",)),
    (("data", "lst"), ("list, fetch or verify",)),
    (("data", "verify", "mnst"), ("did you mean 'mnist'?",)),
    (("ticket", "look", "file"), ("show or export",)),
    ((*SMOKE[:4], "--experiment", "lenet-mnst"), ("did you mean 'lenet-mnist'?",)),
    (("replicate", "frankle2019", "--experiment", "conv2-cifar10"), ("needs a GPU",)),
])  # fmt: skip
def test_a_wrong_call(call, args, words):
    refused(call(*args), 2, *words)


@pytest.mark.parametrize("text", ["5", "9 minutes", "-3m", "m", "1h30m", ""])
def test_a_bad_duration(call, text):
    if text:
        refused(call(*SMOKE, "--max-time", text), 2, "bad duration", "9m")


@pytest.mark.parametrize(("text", "words"), [
    ("nonsense", ("protocol.field=value",)),
    ("lenet-mnist.length", ("protocol.field=value",)),
    ("lenet-mnst.length=50it", ("did you mean 'lenet-mnist'?",)),
    ("lenet-mnist.lenght=50it", ("did you mean 'length'?",)),
    ("lenet-mnist.optimizer.lrr=1", ("did you mean 'lr'?",)),
    ("lenet-mnist.length=50", ("bad length '50'", "2000it or 160ep")),
    ("lenet-mnist.rewind=soon", ("bad length 'soon'",)),
    ("lenet-mnist.optimizer.lr=fast", ("'fast' is not a number",)),
    ("lenet-mnist.batch_size=60.5", ("is not a whole number",)),
    ("lenet-mnist.batch_size=0", ("batch_size",)),
    ("lenet-mnist.batch_size=99999", ("larger than the 1000 training examples",)),
    ("lenet-mnist.optimizer.name=adm", ("did you mean 'adam'?",)),
    ("lenet-mnist.model.name=lenett", ("did you mean 'lenet'?",)),
    ("lenet-mnist.data.name=mnits", ("did you mean 'mnist'?",)),
    ("lenet-mnist.pruning.criterion=magnitud", ("did you mean 'magnitude'?",)),
    ("lenet-mnist.pruning.rates={fc: 2}", ("not a share from 0 to 1",)),
    ("lenet-mnist.pruning.rates={fc", ("bad value",)),
    ("lenet-mnist.control=none-at-all", ("did you mean 'none'?",)),
    ("lenet-mnist.data.val=1500", ("leaves none",)),
    ("lenet-mnist-oneshot.length=50it", ("lenet-mnist-oneshot is not run here",)),
])  # fmt: skip
def test_a_bad_set(call, text, words):
    refused(call(*SMOKE, "--set", text), 2, *words)


def test_an_unknown_export_format(call, smoke_store: Smoke):
    refused(call("export", "frankle2019", "--store", smoke_store.root, "--format", "htm"), 2, "did you mean html?", "latex")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there(call):
    refused(call(*SMOKE, "--device", "cuda"), 1, "no CUDA device", "--device cpu")


# ---- data ----------------------------------------------------------------------------------------------------
@pytest.fixture
def damaged_mnist(tmp_path) -> Path:
    """MNIST's four files in torchvision's layout, the training images cut short."""
    raw = tmp_path / "data/MNIST/raw"
    raw.mkdir(parents=True)
    for part, n in (("train", 60_000), ("t10k", 10_000)):
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, n) + bytes(n))
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, n, 28, 28) + bytes(1000))
    return tmp_path / "data"


def test_a_truncated_data_file(call, damaged_mnist, monkeypatch):
    refused(call(*QUICK, "--data", damaged_mnist), 1, "train-images-idx3-ubyte", "damaged", "1016 bytes")
    monkeypatch.setenv("LTCORE_DATA", str(damaged_mnist))
    refused(call(*QUICK), 1, "train-images-idx3-ubyte", "damaged")
    code, out, _ = call("data", "verify", "mnist", "--json")
    assert code == 1 and json.loads(out)[0]["status"] == "damaged"


def test_a_data_folder_that_is_not_there(call, monkeypatch, tmp_path):
    refused(call(*QUICK, "--data", tmp_path / "nowhere"), 1, "there is no such folder")
    monkeypatch.setenv("LTCORE_DATA", str(tmp_path / "nowhere"))
    refused(call(*QUICK), 1, "LTCORE_DATA=", "there is no such folder")


def test_paper_scale_wants_the_paper_s_own_data(call, monkeypatch, tmp_path):
    from ltcore.data import sources

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sources, "download_once", lambda *args: "no network")
    refused(call("replicate", "frankle2019", "--scale", "paper"), 1, "set LTCORE_DATA or use --scale quick")


# ---- ticket files --------------------------------------------------------------------------------------------
def test_a_pickle_in_place_of_a_ticket(call, tmp_path):
    file = tmp_path / "ticket"
    file.write_bytes(pickle.dumps({"mask": [1, 2, 3]}))
    refused(call("ticket", "show", file), 1, "not a safetensors file")
    torch.save({"w": torch.ones(2)}, file)
    refused(call("ticket", "show", file), 1, "not a safetensors file")


def test_a_ticket_whose_mask_has_another_shape(call, tmp_path):
    mask, weights = {"output.weight": torch.ones(3, 4, dtype=torch.bool)}, {"output.weight": torch.zeros(3, 5)}
    tickets.save(tmp_path / "ticket", tickets.Ticket(mask, weights, {"paper": "frankle2019"}))
    refused(call("ticket", "show", tmp_path / "ticket"), 1, "the mask of 'output.weight' does not fit its weights")


def test_a_ticket_file_that_is_missing_or_holds_other_tensors(call, tmp_path):
    refused(call("ticket", "show", tmp_path / "none"), 1, "no such file")
    tickets.save_tensors(tmp_path / "tensors", {"w": torch.ones(2)})
    refused(call("ticket", "show", tmp_path / "tensors"), 1, "no ticket")


@pytest.mark.parametrize(("options", "words"), [
    (("--level", "9"), ("was not run at level 9", "1, 2")),
    (("--arm", "tickt"), ("did you mean 'ticket'?",)),
    (("--experiment", "lenet"), ("was not run",)),
    (("--trial", "7"), ("trial 7",)),
])  # fmt: skip
def test_a_ticket_that_was_not_run(call, smoke_store: Smoke, tmp_path, options, words):
    refused(call("ticket", "export", tmp_path / "ticket", "--scale", "smoke", "--store", smoke_store.root, *options), 2, *words)


# ---- the store -----------------------------------------------------------------------------------------------
@pytest.fixture
def copy(smoke_store: Smoke, tmp_path) -> Path:
    """A store of one's own to break."""
    return Path(shutil.copytree(smoke_store.root, tmp_path / "store"))


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/nowhere"])
def test_a_store_that_can_t_be_there(call, tmp_path, place):
    (tmp_path / "file").touch()
    store = tmp_path / place  # an absolute place stays as it is
    refused(call(*SMOKE, "--store", store), 1, str(store), "name another with --store")
    refused(call("compare", "frankle2019", "--store", store), 1, "no store at", "replicate")
    assert (tmp_path / "file").read_bytes() == b""


def test_reading_makes_no_store(call, tmp_path):
    for verb in (("status",), ("compare", "frankle2019"), ("export", "frankle2019", "--format", "md"), ("plot", "frankle2019", "-o", tmp_path / "plots")):
        refused(call(*verb, "--store", tmp_path / "none"), 1, "no store at")
    assert not (tmp_path / "none").exists()


def test_a_store_in_which_nothing_was_run(call, tmp_path):
    Store(tmp_path / "new")
    refused(call("compare", "frankle2019", "--store", tmp_path / "new"), 1, "nothing was run yet", "replicate frankle2019")
    refused(call("compare", "frankle2019", "--scale", "paper", "--store", tmp_path / "new"), 1, "--scale paper")


def test_a_store_of_another_layout(call, copy):
    (copy / "layout.json").write_text('{"layout": 99}')
    refused(call(*SMOKE, "--store", copy), 1, "layout 99", "name another with --store")


def all_smoke(call, store):
    """The plain smoke run in this store: (exit code, stdout, stderr)."""
    return call("replicate", "frankle2019", "--scale", "smoke", "--store", store)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"values": []}', "\x00\x01"])
def test_a_damaged_record_says_what_to_remove_and_that_mends_it(call, smoke_store: Smoke, copy, content):
    assert all_smoke(call, copy)[:2] == (0, smoke_store.stdout)
    manifest = Store(copy).read_manifest(Store(copy).manifests("")[-1])
    folder = Store(copy).folder(next(p["stage"] for p in manifest["points"] if p["condition"]["arm"] == "reinit"))
    (folder / "record.json").write_text(content)
    refused(call("compare", "frankle2019", "--scale", "smoke", "--store", copy), 1, f"remove {folder} and run the same 'replicate' command again")
    if content == "{":  # the advice is good: once is enough, as it trains
        shutil.rmtree(folder)
        done = run_bench("replicate", "frankle2019", "--scale", "smoke", "--store", copy)
        assert (done.returncode, done.stdout) == (0, smoke_store.stdout)


@pytest.mark.parametrize(("change", "words"), [
    (lambda m: m | {"version": 99}, ("has version 99, this program reads 2", "run the same 'replicate' command again")),
    (lambda m: {k: v for k, v in m.items() if k != "version"}, ("has version None",)),
    (lambda m: {k: v for k, v in m.items() if k != "points"}, ("is damaged; remove",)),
    (lambda m: m | {"points": [{"stage": "x"}]}, ("is damaged; remove",)),
    (lambda m: [m], ("is damaged; remove",)),
])  # fmt: skip
def test_a_manifest_that_is_damaged_or_of_another_version(call, copy, change, words):
    for path in Store(copy).manifests("")[:-1]:
        path.unlink()
    path = Store(copy).manifests("")[-1]
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    refused(call("compare", "frankle2019", "--store", copy), 1, str(path), *words)
    refused(call("status", "--store", copy), 1, str(path), *words)


def test_replicate_writes_its_own_damaged_manifest_anew(call, smoke_store: Smoke, copy):
    all_smoke(call, copy)
    Store(copy).manifests("")[-1].write_text("{")
    assert all_smoke(call, copy)[:2] == (0, smoke_store.stdout)


def test_a_pickle_in_place_of_a_stage_s_tensors(copy, smoke_store: Smoke):
    """Mask of level 1 damaged, and what needs it lost: the line names the file and the folder to remove."""
    store = Store(copy)
    manifest = store.read_manifest(store.manifests("")[-1])
    tickets_ = {p["condition"]["level"]: p["stage"] for p in manifest["points"] if p["label"] == "lenet-mnist" and p["condition"]["arm"] == "ticket"}
    mask = store.record(tickets_[1])["stage"]["inputs"]["mask"][0]
    shutil.rmtree(store.folder(tickets_[1]))
    (store.folder(mask) / "mask.safetensors").write_bytes(pickle.dumps([1, 2]))
    again = ("replicate", "frankle2019", "--scale", "smoke", "--store", copy)
    failed(run_bench(*again), "mask.safetensors", "not a safetensors file", f"remove {store.folder(mask)}")
    shutil.rmtree(store.folder(mask))
    done = run_bench(*again)
    assert (done.returncode, done.stdout) == (0, smoke_store.stdout)


# ---- a full disk ---------------------------------------------------------------------------------------------
def small_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # LeNet's weights need 172 kB


def test_a_disk_that_takes_no_more(tmp_path, smoke_store: Smoke):
    """A limit on the size of files stands in for the full disk: the first weights can't be written, and the whole run stops."""
    command = [sys.executable, "-m", "bench", *SMOKE, "--store", str(tmp_path / "store")]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, preexec_fn=small_files, timeout=120)
    failed(done, "File too large", "free some space and run the same command again; what is done is kept")
    assert done.stdout == ""
    again = run_bench(*SMOKE, "--store", tmp_path / "store")
    assert again.returncode == 0 and "All arms" in again.stdout
    assert not list((tmp_path / "store/tmp").iterdir())


def test_a_full_disk_in_the_middle_of_a_stage_leaves_nothing_half_done(tmp_path, monkeypatch):
    store = Store(tmp_path)

    def full(path, tensors):
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    record = {"stage": {"kind": "init"}, "values": [], "curves": {}, "facts": {}, "machine": {}}
    with monkeypatch.context() as patch:
        patch.setattr(tickets, "save_tensors", full)
        with pytest.raises(StoreError, match="No space left on device.*free some space"):
            store.commit("abc", record, {"state": {}})
    assert store.stages() == [] and not list((tmp_path / "tmp").iterdir())
    store.commit("abc", record, {"state": {"w": torch.ones(2)}})
    assert store.stages() == ["abc"]


def test_safetensors_own_errors_are_system_errors(tmp_path):
    with pytest.raises(OSError) as error:
        tickets.save_tensors(tmp_path / "nowhere" / "file", {"w": torch.ones(2)})
    assert error.value.errno == errno.ENOENT


# ---- a user's file -------------------------------------------------------------------------------------------
MODEL = ("--set", "lenet-mnist.model.name=mine")
DATA = ("--set", "lenet-mnist.data.name=mine")
BEFORE = [
    ("import nowhere_at_all", (), ("can't be run", "ModuleNotFoundError", "line 1 of my.py")),
    ("x = 1\n\ndef broken(:\n", (), ("can't be run", "SyntaxError", "line 3 of my.py")),
    ("x = 1", (), ("defines none of MODELS, CRITERIA, DATASETS, ARMS",)),
    ("ARMS = [1]", (), ("ARMS", "is a list: it must be a dict")),
    ("ARMS = {'mine': 3}", (), ("'mine' is a int",)),
    ("ARMS = {'ticket': lambda trial, level, draw=0: trial.ticket(level)}", (), ("'ticket'", "is taken", "choose another")),
    ("ARMS = {'mine': lambda trial, level, draw=0: 42}", (), ("arm 'mine' gave a int, not a Stage",)),
    ("ARMS = {'mine': lambda trial: None}", (), ("arm 'mine'", "(trial, level, draw) -> Stage", "TypeError")),
    ("def mine(trial, level, draw=0):\n    return trial.maskk(level)\nARMS = {'mine': mine}", (), ("AttributeError", "line 2 of my.py")),
    ("def mine(trial, level, draw=0):\n    return trial.ticket('x')\nARMS = {'mine': mine}", (), ("TypeError", "line 2 of my.py")),
    ("DATASETS = {'mine': lambda: 3}", DATA, ("data set mine: return a Dataset or the four arrays",)),
    ("def mine():\n    raise RuntimeError('gone\\nfor good')\nDATASETS = {'mine': mine}", DATA, ("data set 'mine' failed: RuntimeError: gone (line 2 of my.py)",)),
]
NET = ("import torch\nfrom torch import nn\nclass M(nn.Module):\n    def __init__(self, shape, classes):\n        super().__init__()\n"
       "        self.out = nn.Linear(3, classes)\n    def forward(self, x):\n")  # fmt: skip
DURING = [
    ("CRITERIA = {'mine': lambda s: 3}", (), ("criterion 'mine' must give a dict", "it gave a int")),
    ("CRITERIA = {'mine': lambda s: {n: w[:1] for n, w in s.weights.items()}}", (), ("hidden.0.weight", "(300, 40)", "it gave (1, 40)")),
    ("CRITERIA = {'mine': lambda s: {n: w * float('nan') for n, w in s.weights.items()}}", (), ("not numbers (NaN)",)),
    ("def mine(s):\n    raise ValueError('ouch\\ntwice')\nCRITERIA = {'mine': mine}", (), ("criterion 'mine' failed: ValueError: ouch (line 2 of my.py)",)),
    ("import os\nCRITERIA = {'mine': lambda s: os.kill(os.getpid(), 9)}", (), ("its worker process died (out of memory?)", "run the same command again")),
    (f"{NET}        return self.out(x)\nMODELS = {{'mine': M}}", MODEL, ("shapes cannot be multiplied", "failures.log")),
    (f"{NET}        return torch.empty(10**15)\nMODELS = {{'mine': M}}", MODEL, ("out of memory with one replicate: --set EXPERIMENT.batch_size", "allocate")),
    ("MODELS = {'mine': lambda shape, classes: 3}", MODEL, ("model 'mine' is a int, not an nn.Module",)),
]  # fmt: skip


def test_a_user_s_file_that_is_missing(call, tmp_path):
    refused(call(*SMOKE, "--with", tmp_path / "my.py"), 1, "no such file")
    (tmp_path / "my.txt").write_text("ARMS = {}")
    refused(call(*SMOKE, "--with", tmp_path / "my.txt"), 1, "its name must end in .py")


@pytest.mark.parametrize(("text", "options", "words"), BEFORE)
def test_a_user_s_file_that_fails_before_anything_runs(call, tmp_path, text, options, words):
    (tmp_path / "my.py").write_text(text)
    refused(call(*SMOKE, "--with", tmp_path / "my.py", *options), 1, *words)


@pytest.mark.parametrize(("text", "options", "words"), DURING)
def test_a_user_s_code_that_fails_takes_down_its_own_rows_only(call, smoke_store: Smoke, tmp_path, text, options, words):
    (tmp_path / "my.py").write_text(text)
    done = run_bench(*SMOKE, "--store", smoke_store.root, "--with", tmp_path / "my.py", *options)
    failed(done, " failed: ", *words)
    if not options:  # the published arms stand in the table all the same
        assert "ticket level 2" in done.stdout
    assert all_smoke(call, smoke_store.root)[:2] == (0, smoke_store.stdout)  # and the store is as good as before


def test_a_damaged_manifest_of_another_run_stops_nothing(tmp_path, smoke_store: Smoke):
    store = shutil.copytree(smoke_store.root, tmp_path / "store")
    (store / "manifests" / "frankle2019-smoke-00000000.json").write_text('{"version": 0}')
    again = run_bench("replicate", "frankle2019", "--scale", "smoke", "--store", store)
    assert again.returncode == 0 and again.stdout == smoke_store.stdout
