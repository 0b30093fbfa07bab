"""The loops that ``perf --model`` times against each other on convolutional nets for CIFAR-10, each as in :mod:`bench.contenders`."""
from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from bench.contenders import ENDLESS_IT, UNREAD, Contender, Turn, training
from ltcore import data as sets
from ltcore.data import Dataset, Split
from ltcore.data.augment import PAD
from ltcore.errors import UserError
from ltcore.models import MODELS, draw_state, layer_sizes, skeleton
from ltcore.recipe import Model, Optimizer
from ltcore.training import supervised
from ltcore.training.loop import Replicate, Segment, Stopped, train

KEPT = 0.21  # share of the weights that the masks keep, as in a ticket
WARM_UP_IT = {"cpu": 2, "cuda": 8}  # untimed steps at each turn: the first ones touch new memory
aten = torch.ops.aten


@dataclass(frozen=True)
class Net:
    """A net with the recipe that its paper trains it by; the learning rate is a small one, as labels may be noise."""

    title: str
    model: Model
    optimizer: Optimizer
    batch: int
    augment: str = "none"

    def module(self, data: Dataset) -> nn.Module:
        return skeleton(MODELS[self.model.name], self.model, data.input_shape, data.classes)

    def state(self, data: Dataset, r: int = 0) -> dict[str, Tensor]:
        return draw_state(MODELS[self.model.name], self.model, data.input_shape, data.classes, [r, "init"])


_ADAM, _SGD = Optimizer("adam", 2e-4), Optimizer("sgd", 1e-3, momentum=0.9, weight_decay=1e-4)
NETS: dict[str, Net] = {
    "conv2": Net("Conv-2", Model("conv", options={"depth": 2}), _ADAM, 60),
    "resnet20": Net("ResNet-20", Model("resnet", options={"depth": 20}), _SGD, 128, "crop-flip"),
    "vgg19": Net("VGG-19", Model("vgg", options={"depth": 19}), _SGD, 64, "crop-flip"),
}


# ---- data ----------------------------------------------------------------------------------------------------
def cifar10() -> tuple[Dataset, str]:
    """CIFAR-10 where its files are, else noise of its shape; and what to say of it."""
    try:
        return sets.load("cifar10", "local"), "CIFAR-10"
    except UserError as error:
        return noise(), f"random images of CIFAR-10's shape, which take the same time ({error})"


def noise(examples: int = 50_000) -> Dataset:
    """Random uint8 images with CIFAR-10's constants."""
    g, source = torch.Generator().manual_seed(0), sets.DATASETS["cifar10"]
    x = torch.randint(256, (examples, *source.image), dtype=torch.uint8, generator=g)
    split = Split(x, torch.randint(source.classes, (examples,), generator=g))
    return sets.build("noise", split, Split(x[:10], split.y[:10]), source.classes, source="random numbers", scale=source.scale, shift=source.shift)


# ---- the engine ----------------------------------------------------------------------------------------------
def replicates(net: Net, data: Dataset, n: int = 1) -> list[Replicate]:
    """Fresh copies, each with its own weights, order and random mask."""
    out, prunable = [], layer_sizes(net.module(data))
    for r in range(n):
        state, g = net.state(data, r), torch.Generator().manual_seed(r)
        mask = {name: torch.rand(state[name].shape, generator=g) < KEPT for name in prunable}
        augment = [r, "augment"] if net.augment == "crop-flip" else None
        out.append(Replicate(state, mask, supervised.Streams([r, "split"], [r, "order"], augment=augment)))
    return out


@dataclass(frozen=True, eq=False)
class Clocked(Dataset):
    """Notes when each batch is asked for, and ends the training after ``seconds`` of steps: a turn may be one step long."""

    seconds: float = 0.0
    untimed: int = 0  # how many batches are asked for before the first timed step: one by the probe, the others for the warm-up
    asked_s: list[float] = field(default_factory=list)

    def prepare(self, x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        self.asked_s.append(time.perf_counter())
        if len(self.asked_s) > self.untimed + 1 and self.asked_s[-1] - self.asked_s[self.untimed] >= self.seconds:
            raise Stopped
        return super().prepare(x, dtype)


def engine(net: Net, data: Dataset, stack: Sequence[Replicate]) -> Contender:
    """``ltcore.training.loop.train`` itself on CPU, timed from batch to batch."""
    untimed = 1 + WARM_UP_IT["cpu"]

    def turn(seconds: float) -> Turn:
        clocked = Clocked(**{k: getattr(data, k) for k in Dataset.__dataclass_fields__}, seconds=seconds, untimed=untimed)
        with contextlib.suppress(Stopped):
            train(net.module(data), clocked, _segment(net), stack)
        return len(clocked.asked_s) - 1 - untimed, clocked.asked_s[-1] - clocked.asked_s[untimed]

    return turn


def engine_cuda(net: Net, data: Dataset, stack: Sequence[Replicate], backend: str, precision: str = "fp32") -> Contender:
    """The same on a GPU, where a captured step asks for no batch: timed where the loop asks whether to stop."""
    return training(lambda checkpoints: train(net.module(data), data, _segment(net, precision), stack, checkpoints, backend), on_gpu=True)


def _segment(net: Net, precision: str = "fp32") -> Segment:
    return Segment(net.optimizer, net.batch, 0, ENDLESS_IT, UNREAD, 0, precision)


# ---- loops that people write -----------------------------------------------------------------------------------
def plain(net: Net, data: Dataset) -> Contender:
    """Inputs normalised in float32 in memory, one randperm an epoch, batched crop and flip, nn.Module, torch.optim."""
    x, y, step = data.prepare(data.train.x), data.train.y, torch_step(net, data)
    change = crop_flip if net.augment == "crop-flip" else lambda batch: batch

    def epoch() -> Iterator[tuple[Tensor, Tensor]]:
        return ((change(x[i]), y[i]) for i in torch.randperm(len(x), device=x.device).split(net.batch))

    return _turns(step, _full(epoch, net.batch), x.device.type)


def crop_flip(x: Tensor) -> Tensor:
    """Random crops of zero-padded images (B, C, H, W), each flipped with probability 1/2; as short as it is written by hand."""
    count, _, height, width = x.shape
    windows = F.pad(x, [PAD] * 4).unfold(2, height, 1).unfold(3, width, 1)  # (B, C, 9, 9, H, W), a view
    top, left = torch.randint(2 * PAD + 1, (2, count), device=x.device)
    cropped = windows[torch.arange(count, device=x.device), :, top, left]
    return torch.where(torch.rand(count, 1, 1, 1, device=x.device) < 0.5, cropped.flip(3), cropped)


class Pictures(TorchDataset):
    """As ``torchvision.datasets.CIFAR10`` serves them: one PIL image at a time, through a transform."""

    def __init__(self, data: Dataset, transform: Callable[[Any], Tensor]):
        self.images, self.labels = data.train.x.cpu().permute(0, 2, 3, 1).contiguous().numpy(), data.train.y.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[i])), self.labels[i]


def dataloader(net: Net, data: Dataset, workers: int) -> Contender:
    """The usual loop: PIL images, torchvision's transforms, a shuffling DataLoader, nn.Module, torch.optim. Start-up of workers is not timed."""
    device = data.train.x.device
    loader = DataLoader(Pictures(data, transform(net, data)), net.batch, True, num_workers=workers, pin_memory=device.type == "cuda")
    step = torch_step(net, data)
    moved = ((x.to(device, non_blocking=True), y.to(device, non_blocking=True)) for x, y in _full(lambda: loader, net.batch))
    return _turns(step, moved, device.type)


def transform(net: Net, data: Dataset) -> Callable[[Any], Tensor]:
    """(RandomCrop, RandomHorizontalFlip,) ToTensor, Normalize."""
    from ltcore.data.torchvision_compat import torchvision_datasets

    torchvision_datasets()  # makes torchvision importable where its compiled operators are not
    from torchvision import transforms as t

    constants = [(v.flatten() / 255).tolist() for v in (data.shift, data.scale)]
    change = [t.RandomCrop(data.input_shape[-1], PAD), t.RandomHorizontalFlip()] if net.augment == "crop-flip" else []
    return t.Compose([*change, t.ToTensor(), t.Normalize(*constants)])


def torch_step(net: Net, data: Dataset) -> Callable[[Tensor, Tensor], None]:
    """Zero, forward, backward, step, with the module's weights in its own memory."""
    module, o = net.module(data), net.optimizer
    module.load_state_dict(net.state(data), strict=False)
    module.to(data.train.x.device)
    optimizer = (torch.optim.Adam(module.parameters(), o.lr, o.betas, o.eps, o.weight_decay) if o.name == "adam"
                 else torch.optim.SGD(module.parameters(), o.lr, o.momentum, weight_decay=o.weight_decay))  # fmt: skip

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        F.cross_entropy(module(x), y).backward()
        optimizer.step()

    return step


def _full(epoch: Callable[[], Any], batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Epoch after epoch without the last, smaller batches, which the engine drops too."""
    while True:
        yield from ((x, y) for x, y in epoch() if len(y) == batch)


# ---- the ceiling -----------------------------------------------------------------------------------------------
def needed_flop(module: nn.Module, shape: Sequence[int], batch: int) -> int:
    """Operations of the convolutions and matrix products that a step needs: forward, by each weight, and by each input but the net's."""
    return sum(_flop(*call) * (2 if i == 0 else 3) for i, call in enumerate(_calls(module, shape, batch)))


LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}


def products(module: nn.Module, shape: Sequence[int], batch: int, device: str, layout: str) -> Contender:
    """Those operations at their exact shapes and nothing else: what a step costs at the least with this machine's own kernels."""
    calls = _calls(module.to(device, memory_format=LAYOUTS[layout]), shape, batch)
    runs = [_product(layer, *(_laid(t, layout) for t in pair), needs_input=i > 0) for i, (layer, *pair) in enumerate(calls)]

    def step() -> None:
        for run in runs:
            run()

    return _turns(step, None, device)


Call = tuple[nn.Module, Tensor, Tensor]  # a layer, and what it was given and gave


@torch.no_grad()
def _calls(module: nn.Module, shape: Sequence[int], batch: int) -> list[Call]:
    """The convolutional and linear layers in the order of their calls; the first is given the net's input."""
    found: list[Call] = []
    layers = [m for m in module.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    hooks = [m.register_forward_hook(lambda layer, given, out: found.append((layer, given[0].clone(), torch.randn_like(out)))) for m in layers]
    module(torch.randn(batch, *shape, device=next(module.parameters()).device))
    for hook in hooks:
        hook.remove()
    return found


def _laid(t: Tensor, layout: str) -> Tensor:
    return t.contiguous(memory_format=LAYOUTS[layout]) if t.dim() == 4 else t


def _flop(layer: nn.Module, given: Tensor, out: Tensor) -> int:
    return 2 * out.numel() * (layer.weight.numel() // layer.weight.shape[0])


def _product(layer: nn.Module, x: Tensor, back: Tensor, needs_input: bool) -> Callable[[], None]:
    """Forward, gradient by the weights and, where needed, by the input ``x``; ``back`` is the gradient by the output."""
    w = layer.weight.detach()
    if isinstance(layer, nn.Linear):
        return lambda: (torch.mm(x, w.t()), torch.mm(back.t(), x), torch.mm(back, w) if needs_input else None)
    where = (layer.stride, layer.padding, layer.dilation)
    backward = (None, *where, False, [0, 0], layer.groups, [needs_input, True, False])
    return lambda: (F.conv2d(x, w, None, *where, layer.groups), aten.convolution_backward(back, x, w, *backward))


# ---- turns -----------------------------------------------------------------------------------------------------
def _turns(step: Callable[..., Any], batches: Iterator[Any] | None, device: str) -> Contender:
    """Steps, each on the next batch where there are batches, until the time is up; at least one."""

    def sync() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def run(times: int) -> None:
        for _ in range(times):
            step(*next(batches)) if batches else step()

    def turn(seconds: float) -> Turn:
        run(WARM_UP_IT[device])
        steps, started = 0, sync()
        while True:
            run(1 if device == "cpu" else WARM_UP_IT["cuda"])  # on a GPU waiting after each step would idle it
            steps, spent = steps + (1 if device == "cpu" else WARM_UP_IT["cuda"]), sync() - started
            if spent >= seconds:
                return steps, spent

    return turn
