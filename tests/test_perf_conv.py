"""``perf --model``: what is measured on convolutional nets and how figures hang together; never how fast anything is."""
from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bench import contenders_conv, perf, perf_conv
from bench.contenders_conv import NETS, Net
from ltcore.errors import UsageError, UserError
from ltcore.recipe import Model, Optimizer
from ltcore.training import optimizers

TINY = Net("tiny", Model("resnet", options={"depth": 8, "width": 2}), Optimizer("sgd", 1e-3, momentum=0.9, weight_decay=1e-4), 4, "crop-flip")
SHAPE = (3, 32, 32)


@pytest.fixture(scope="module")
def data():
    return contenders_conv.noise(40)


@pytest.fixture(scope="module")
def figures(data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(perf_conv, "workers", lambda device: 2)
        return perf_conv.measure_net(TINY, data, "noise", 0.03, "cpu")


@pytest.mark.parametrize(("model", "title", "batch", "augment"),
                         [("conv2", "Conv-2", 60, "none"), ("resnet20", "ResNet-20", 128, "crop-flip"), ("vgg19", "VGG-19", 64, "crop-flip")])  # fmt: skip
def test_nets_have_the_papers_recipes(model, title, batch, augment):
    assert (NETS[model].title, NETS[model].batch, NETS[model].augment) == (title, batch, augment)


def test_the_needed_operations_of_conv2(data):
    first, second, fc = 1024 * 64 * 3 * 9, 1024 * 64 * 64 * 9, 16384 * 256 + 256 * 256 + 256 * 10
    wanted = 2 * 60 * (2 * first + 3 * (second + fc))
    assert contenders_conv.needed_flop(NETS["conv2"].module(data), SHAPE, 60) == wanted == 15_548_682_240


def test_strides_and_the_first_layer_count_as_they_are():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Flatten(), nn.Linear(4 * 16 * 16, 10))
    assert contenders_conv.needed_flop(net, SHAPE, 5) == 2 * 5 * (2 * 16 * 16 * 4 * 27 + 3 * 1024 * 10)


def test_products_are_autograds_own(monkeypatch):
    torch.manual_seed(0)
    layer, x = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False), torch.randn(2, *SHAPE, requires_grad=True)
    out = layer(x)
    back = torch.randn_like(out)
    by_input, by_weight = torch.autograd.grad(out, [x, layer.weight], back)
    forward, (got_input, got_weight, _) = contenders_conv._product(layer, x.detach(), back, needs_input=True)()
    assert torch.allclose(forward, out) and torch.allclose(got_input, by_input, atol=1e-5) and torch.allclose(got_weight, by_weight, atol=1e-4)
    assert contenders_conv._product(layer, x.detach(), back, needs_input=False)()[1][0] is None


def test_every_loop_is_there_and_ratios_follow_from_the_times(figures):
    rows = {r["id"]: r for r in figures["cpu"]["rows"]}
    assert list(rows) == ["engine", "plain", "dataloader", "products"]
    for row in rows.values():
        assert row["ms_per_step"] > 0 and row["images_per_s"] == pytest.approx(4000 / row["ms_per_step"])
        assert row["times_engine_step"] == pytest.approx(row["ms_per_step"] / rows["engine"]["ms_per_step"])
        assert row["needed_pct"] == pytest.approx(100 * rows["products"]["ms_per_step"] / row["ms_per_step"])
    cores = figures["all_cores"]
    assert cores["processes"] == 2 and cores["images_per_s"] == pytest.approx(2 * cores["images_per_s_per_core"])
    assert figures["cuda"] is None and figures["step"]["needed_gflop"] > 0


def test_the_ceiling_is_the_faster_memory_layout(figures):
    assert set(figures["cpu"]["products_ms"]) == {"NCHW", "NHWC"}
    assert figures["cpu"]["rows"][-1]["ms_per_step"] == min(figures["cpu"]["products_ms"].values())
    ms = {"engine": 9.0, "products-NCHW": 5.0, "products-NHWC": 4.0}
    assert perf_conv.layouts(ms) == {"NCHW": 5.0, "NHWC": 4.0} and ms == {"engine": 9.0, "products": 4.0}


def test_json_is_alone_on_stdout_and_the_text_names_data_and_loader(figures, monkeypatch, capsys):
    monkeypatch.setattr(perf_conv, "measure", lambda model, seconds, device: figures)
    perf.run(0.1, "cpu", True, "resnet20")
    assert json.loads(capsys.readouterr().out) == figures
    perf.run(0.1, "cpu", False, "resnet20")
    text = capsys.readouterr().out
    assert "data: noise" in text and "DataLoader, 2 workers; PIL, RandomCrop, RandomHorizontalFlip, ToTensor, Normalize" in text
    assert "engine ÷ plain loop" in text


def test_an_unknown_net_is_a_line_with_the_known_ones():
    with pytest.raises(UsageError, match="did you mean 'vgg19'.*lenet, conv2, resnet20, vgg19"):
        perf_conv.measure("vgg18", 0.1, "cpu")


def test_without_cifar_the_output_says_that_images_are_random(monkeypatch):
    def absent(*args):
        raise UserError("not there")

    monkeypatch.setattr(contenders_conv.sets, "load", absent)
    monkeypatch.setattr(contenders_conv, "noise", lambda: "noise")
    assert contenders_conv.cifar10() == ("noise", "random images of CIFAR-10's shape, which take the same time (not there)")


def test_the_engines_turn_is_the_training_loop_itself(data, monkeypatch):
    updates, original = [], optimizers.update
    monkeypatch.setattr(optimizers, "update", lambda *args: (updates.append(1), original(*args))[1])
    steps, spent_s = contenders_conv.engine(TINY, data, contenders_conv.replicates(TINY, data))(0.0)
    assert steps == 1 and spent_s > 0 and len(updates) == steps + contenders_conv.WARM_UP_IT["cpu"]


def test_the_engine_crops_and_flips_where_the_recipe_does(data):
    streams = [contenders_conv.replicates(net, data)[0].streams for net in (TINY, Net("t", TINY.model, TINY.optimizer, 4))]
    assert streams[0].augment is not None and streams[1].augment is None


def test_every_crop_of_the_plain_loop_is_one_of_the_padded_image():
    image = torch.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    padded = F.pad(image, [4] * 4)[0, 0]
    crops = [padded[r : r + 3, c : c + 3] for r in range(9) for c in range(9)]
    known = {tuple(v.flatten().tolist()) for crop in crops for v in (crop, crop.flip(1))}
    torch.manual_seed(0)
    found = contenders_conv.crop_flip(image.expand(2000, 1, 3, 3))
    assert {tuple(f.flatten().tolist()) for f in found} == known


def test_the_loader_serves_what_the_engine_sees(data):
    plain_net = Net("t", TINY.model, TINY.optimizer, 4)
    x, y = contenders_conv.Pictures(data, contenders_conv.transform(plain_net, data))[7]
    assert y == int(data.train.y[7]) and torch.allclose(x, data.prepare(data.train.x[7]), atol=1e-5)


def test_figures_of_a_gpu_are_shown_by_precision_class(figures):
    row = {"replicates": 8, "backend": "vmap", "precision": "bf16", "ms_per_step": 6.0, "images_per_s": 170_000.0, "ceiling_pct": 41.0, "note": ""}
    full = {"replicates": 32, "backend": "loop", "precision": "fp32", "ms_per_step": None, "images_per_s": None, "ceiling_pct": None, "note": "out of memory"}
    classes = {p: {"ceiling_images_per_s": 4e5, "ceiling_gflop_per_s": 1e5, "others_images_per_s": {"dataloader": 17_000.0}} for p in ("fp32", "bf16")}
    cuda = {"device": "a GPU", "rows": [row, full], "best": {"fp32": full, "bf16": row}, "classes": classes}
    text = perf_conv.render({**figures, "cpu": None, "all_cores": None, "cuda": cuda})
    assert "170,000" in text and "out of memory" in text and "best: 8 replicates by vmap" in text
    assert "dataloader: 17,000 images/s; the best stack does 10.00 times as many" in text and "does 0.00 times" in text