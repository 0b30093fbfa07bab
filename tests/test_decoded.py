"""Training on images that are decoded batch by batch: the same batches alone and stacked, ahead and on demand, after a resume; and the command line."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from bench import estimate, execute, measurements, plan
from bench.flags import Flags
from bench.store import Store
from ltcore import kinds
from ltcore.data import load
from ltcore.data.images import Decoding, Images
from ltcore.errors import UsageError, UserError
from ltcore.imp import DataFacts, Trial
from ltcore.models import ResNet
from ltcore.recipe import Evaluate, Optimizer
from ltcore.training.loop import Checkpoints, Replicate, Segment, Stopped, train
from ltcore.training.supervised import Batches, Streams, evaluate
from replications import papers, registry
from replications.stabilizing2019_imagenet import RESNET50
from tests.conftest import bench, image_folder

CLASSES, HOW = 3, "resized-crop-flip"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return image_folder(tmp_path_factory.mktemp("images") / "imagenet", CLASSES, 6, 2).parent


@pytest.fixture(scope="module")
def data(root):
    return load("imagenet", root, size=16, resize=20)


def streams(seed: int, augment: bool = True) -> Streams:
    return Streams([seed, "split"], [seed, "order"], None, [seed, "augment"] if augment else None)


def batches(data, *seeds: int, val: int = 3, how: str = HOW, augment: bool = True) -> Batches:
    return Batches(data, val, 4, [streams(seed, augment) for seed in seeds], torch.float32, how)


# ---- batches -------------------------------------------------------------------------------------------------
def test_a_batch_is_the_same_alone_stacked_ahead_and_on_demand(data):
    stacked, alone = batches(data, 0, 1), batches(data, 1)
    for t in range(7):  # more than two epochs of 3
        x, y = stacked.augmented(stacked.index(t), t)
        assert x.shape == (2, 4, 3, 16, 16) and y.shape == (2, 4)
        fresh = batches(data, 0, 1)  # as after a resume: nothing was decoded ahead
        assert torch.equal(fresh.augmented(fresh.index(t), t)[0], x)
        assert torch.equal(alone.augmented(alone.index(t), t)[0][0], x[1])
        assert torch.equal(y, data.train.y[stacked.index(t)])
    assert not torch.equal(x[0], x[1])


def test_augmentation_differs_by_step_and_can_be_left_out(data):
    b, plain = batches(data, 0), batches(data, 0, augment=False)
    index = b.index(0)
    first, later = b.augmented(index, 0)[0], b.augmented(index, 5)[0]
    assert not torch.equal(first, later) and torch.equal(first, b.augmented(index, 0)[0])
    assert torch.equal(plain.augmented(index, 0)[0], plain.fetch(index)[0]) and torch.equal(b.fetch(index)[0], plain.fetch(index)[0])
    assert not torch.equal(first, b.fetch(index)[0])


def test_what_is_ahead_is_not_taken_for_another_index(data):
    b = batches(data, 0)
    b.augmented(b.index(0), 0)
    other = b.index(1).flip(1)
    assert torch.equal(b.augmented(other, 1)[1], data.train.y[other])
    assert torch.equal(b.augmented(other, 1)[0], batches(data, 0).augmented(other, 1)[0])


def test_crop_flip_works_on_decoded_images_too(data):
    b = batches(data, 0, how="crop-flip")
    x = b.augmented(b.index(0), 0)[0]
    assert x.shape == (1, 4, 3, 16, 16) and not torch.equal(x, b.fetch(b.index(0))[0])


def test_parts_are_read_as_they_are(data):
    b = batches(data, 0, 1, val=5)
    for part, n in (("val", 5), ("test", 6), ("train", 13)):
        x, y = b.chunk(part, 0, n)
        assert b.size(part) == n and x.shape == (2, n, 3, 16, 16) and y.shape == (2, n)
    assert torch.equal(b.chunk("test", 1, 3)[0][1], data.prepare(data.test.x[1:3]))
    assert torch.equal(b.chunk("val", 1, 3)[0], b.fetch(b.val_index[:, 1:3])[0])


def test_every_image_of_a_part_is_evaluated(data, monkeypatch):
    monkeypatch.setattr("ltcore.training.supervised.DECODED_CHUNK", 4)  # 6 test images: the last chunk is a small one
    b = batches(data, 0)
    right = dataclasses.make_dataclass("Engine", ["n"])([])
    right.forward = lambda x: right.n.append(x.shape[1]) or torch.nn.functional.one_hot(torch.zeros(1, x.shape[1], dtype=torch.long), 3).float()
    assert evaluate(right, b, "test")[1].tolist() == [pytest.approx(100 / 3)] and right.n == [4, 2]


# ---- training ------------------------------------------------------------------------------------------------
def trained(data, seeds, start=0, stop=8, states=None, checkpoints=None):
    module = ResNet((3, 16, 16), CLASSES, 8, 4)
    g = torch.Generator().manual_seed(1)
    first = {n: torch.randn(t.shape, generator=g, dtype=torch.float64) * 0.2 if t.dim() > 1 else t for n, t in module.state_dict().items()}
    first["output.bias"] = torch.zeros(CLASSES)
    given = states or [(first, None)] * len(seeds)
    replicates = [Replicate(s, {}, streams(seed), o) for seed, (s, o) in zip(seeds, given)]
    segment = Segment(Optimizer("sgd", 0.05, momentum=0.9), 4, start, stop, Evaluate(4, ("end",)), 3, "fp64", HOW)
    return train(module, data, segment, replicates, checkpoints)


def test_stacked_equals_alone(data):
    together = trained(data, (0, 1))
    for r, seed in enumerate((0, 1)):
        alone = trained(data, (seed,))[0]
        assert all((alone.state[n] - t).abs().max() < 1e-10 for n, t in together[r].state.items())
    assert not torch.equal(together[0].state["output.weight"], together[1].state["output.weight"])


def test_a_second_segment_and_a_checkpoint_go_on_where_the_first_ended(data):
    """Steps on decoded images take seconds, so each asks whether to save or stop."""
    straight = trained(data, (0,))[0]
    half = trained(data, (0,), stop=5)[0]
    resumed = trained(data, (0,), start=5, states=[(half.state, half.optimizer)])[0]
    assert all(torch.equal(resumed.state[n], t) for n, t in straight.state.items())
    saved, asked = {}, []

    def stop() -> bool:
        asked.append(None)
        return len(asked) == 4

    with pytest.raises(Stopped):
        trained(data, (0,), checkpoints=Checkpoints(save=lambda t: saved.update({n: v.clone() for n, v in t.items()}), stop=stop))
    assert int(saved["progress"][0]) == 4
    killed = trained(data, (0,), checkpoints=Checkpoints(load=lambda: saved))[0]
    assert all(torch.equal(killed.state[n], t) for n, t in straight.state.items())


def test_nothing_is_decoded_beyond_the_end_and_what_was_begun_is_given_up(data, monkeypatch):
    begun, given_up = [], []
    begin, cancel = Images.begin, Decoding.cancel
    monkeypatch.setattr(Images, "begin", lambda self, index, draws=None: (begun.append(len(index)), begin(self, index, draws))[1])
    monkeypatch.setattr(Decoding, "cancel", lambda self: (given_up.append(len(self.parts)), cancel(self))[1])
    stops = iter([False, True])
    with pytest.raises(Stopped):
        trained(data, (0,), stop=5, checkpoints=Checkpoints(stop=lambda: next(stops)))
    assert begun == [2, 4, 4, 4, 4] and given_up == [4, 4]  # the probe, two trained on, two ahead
    begun.clear(), given_up.clear()
    trained(data, (0,), stop=3)
    assert begun[:4] == [2, 4, 4, 4] and given_up == []


def test_the_augmentation_is_in_the_stage_only_where_it_is_not_crop_flip():
    facts = DataFacts("imagenet", "f", 1_281_167, (3, 224, 224), 1000, decoded=True)
    stage = Trial(RESNET50, facts, 0).ticket(0)
    assert stage.params["augment"] == HOW and kinds.segment(stage.params).augment == HOW
    assert (stage.params["stop"], stage.params["optimizer"]["drops_it"]) == (90 * 1251, (30 * 1251, 60 * 1251, 80 * 1251))
    other = Trial(dataclasses.replace(RESNET50, data=dataclasses.replace(RESNET50.data, augment="crop-flip")), facts, 0).ticket(0)
    assert "augment" not in other.params and kinds.segment(other.params).augment == "crop-flip"


def test_random_resized_crops_need_files():
    with pytest.raises(UsageError, match="needs images in files, such as imagenet's; cifar10 is held as tensors: use crop-flip"):
        Trial(RESNET50, DataFacts("cifar10", "f", 50_000, (3, 32, 32), 10), 0)


def test_a_stack_is_small_where_inputs_are_large():
    imagenet = Trial(RESNET50, DataFacts("imagenet", "f", 1_281_167, (3, 224, 224), 1000, True), 0).ticket(0)
    cifar = next(e for e in registry.load("stabilizing2019").experiments if e.protocol == "resnet18-cifar10").recipe
    small = Trial(cifar, DataFacts("cifar10", "f", 50_000, (3, 32, 32), 10), 0).ticket(0)
    assert execute.most_stacked(imagenet, 128) == 1 and execute.most_stacked(small, 128) == 128 and execute.most_stacked(small, 1) == 1


# ---- the whole way -------------------------------------------------------------------------------------------
MINI = {
    "data.options": "{size: 16, resize: 20}", "batch_size": 4, "length": "8it", "rewind": "0it", "evaluate.every_it": 4, "optimizer.lr": 0.01,
    "optimizer.warmup_it": 2, "optimizer.drops_it": "[6]", "model.name": "resnet", "model.options": "{depth: 8, width: 4}",
}  # fmt: skip
SETS = tuple(f"resnet50-imagenet.{k}={v}" for k, v in MINI.items())


def test_the_plan_lists_it_and_skips_what_is_not_there(root):
    made = plan.make(registry.load("stabilizing2019"), Flags("paper", data=str(root), sets=("resnet50-imagenet.batch_size=4",)))
    assert list(made.about) == ["resnet50-imagenet", "resnet50-imagenet rewind=4ep", "resnet50-imagenet rewind=6ep"]
    assert made.skipped == {"lenet-mnist": "data mnist not found", "resnet18-cifar10": "data cifar10 not found", "vgg19-cifar10": "data cifar10 not found"}
    assert made.notes[0].startswith("ImageNet (ILSVRC-2012): 3 classes, 18 + 6 images in the folder, the whole set has 1,000 classes")
    rewound = {s.params["start"] for s in made.stages if s.kind == "train"}
    assert rewound == {0, 4 * (18 // 4), 6 * (18 // 4)}  # "4ep" is read by the clock


def test_the_estimate_times_a_few_images_and_reads_no_more(root):
    sets = [s for s in SETS if ".batch_size=" not in s]
    made = plan.make(registry.load("stabilizing2019"), Flags("paper", data=str(root), trials=1, levels=1, sets=(*sets, "resnet50-imagenet.batch_size=16")))
    found = estimate.summary(made, None, "cpu", 1)
    runs = [s for s in made.stages if s.kind == "train"]
    assert found["iterations"] == 8 * len(runs) and found["stages"]["train"]["to_do"] == len(runs)
    assert found["seconds"] > 0 and found["ms_per_iteration"] < 5000
    assert estimate._data(runs[0], made).train.x.files == made.sets[runs[0].params["data"]["fingerprint"]].train.x.files


def test_other_experiments_go_on_without_it(tmp_path):
    from tests.test_data import write_mnist

    write_mnist(tmp_path)
    made = plan.make(registry.load("stabilizing2019"), Flags("paper", data=str(tmp_path), sets=("lenet-mnist.data.val=2", "lenet-mnist.batch_size=5")))
    assert list(made.about) == ["lenet-mnist"] and made.skipped["resnet50-imagenet"] == "data imagenet not found"
    with pytest.raises(UserError, match="nothing downloads it"):
        plan.make(registry.load("stabilizing2019"), Flags("paper", ("resnet50-imagenet",), data=str(tmp_path)))


def test_replicate_and_compare_on_a_tiny_folder(root, tmp_path):
    flags = [f"--set={s}" for s in SETS]
    done = bench("replicate", "stabilizing2019", "--scale", "paper", "--experiment", "resnet50-imagenet", "--data", root, "--trials", 1, "--levels", 1,
                 "--store", tmp_path, "--json", *flags)  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    row = next(r for r in found["rows"] if r["id"] == "f6-r50")
    assert row["status"] == "measured" and row["comparable"] is False and found["provenance"]["data"]["source"] == "folder"
    manifest, store, published = next(json.loads(p.read_text()) for p in (tmp_path / "manifests").glob("*.json")), Store(tmp_path), papers.load("stabilizing2019")
    why = measurements.run_info(manifest, store, registry.load("stabilizing2019"), published).comparable["resnet50-imagenet"]
    assert why.startswith("data: ImageNet (ILSVRC-2012): 3 classes, 18 + 6 images in the folder") and "--set" in why
    measured = measurements.read(manifest, store, published)
    kept = {m.condition["weights_remaining_pct"]: m.density for m in measured if m.condition["arm"] == "one-shot" and "rewind" not in m.condition}
    assert kept == {30.0: pytest.approx(0.3, abs=0.001), 80.0: pytest.approx(0.8, abs=0.001)}


def test_a_broken_image_fails_its_stages_with_one_line(tmp_path):
    root = image_folder(tmp_path / "data" / "imagenet", CLASSES, 6, 2).parent
    (root / "imagenet" / "val" / "n01" / "0.JPEG").write_bytes(b"no image")
    done = bench("replicate", "stabilizing2019", "--scale", "paper", "--experiment", "resnet50-imagenet", "--data", root, "--trials", 1, "--levels", 0,
                 "--store", tmp_path / "store", *[f"--set={s}" for s in SETS])  # fmt: skip
    assert done.returncode == 1 and "n01/0.JPEG cannot be read as an image" in done.stderr and "Traceback" not in done.stderr
