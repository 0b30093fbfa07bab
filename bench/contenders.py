"""The loops that ``perf`` times against each other: LeNet-300-100, batches of 60 of MNIST's size, Adam, one thread a process.

Each is a function (seconds) -> (steps, seconds that they took), so that they can take turns.
"""
from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from ltcore import data as sets
from ltcore.data import Dataset, Split
from ltcore.models import LeNet, draw_state, skeleton
from ltcore.recipe import Evaluate, Model, Optimizer
from ltcore.training import backends, supervised
from ltcore.training.loop import CHECK_EVERY_IT, Checkpoints, Replicate, Segment, Stopped, train

WIDTHS, BATCH, LR = (784, 300, 100, 10), 60, 1.2e-3
EXAMPLES, VALIDATION, EVALUATE_EVERY_IT = 60_000, 5_000, 100  # of the LeNet protocol
ENDLESS_IT = 1_000_000
UNREAD = Evaluate(ENDLESS_IT, (), ())  # no evaluation
WARM_UP_IT = 8  # untimed steps at each turn: caches and, of loader workers, batches that were made while another loop was timed

Turn = tuple[int, float]  # steps, seconds
Contender = Callable[[float], Turn]
MODEL, SHAPE = Model("lenet"), (1, 28, 28)


def needed_flop(widths: Sequence[int] = WIDTHS, batch: int = BATCH) -> int:
    """Floating-point operations of the matrix products that one step needs: forward, gradient by each weight, and by each input but the first."""
    sizes = [a * b for a, b in zip(widths, widths[1:])]
    return 2 * batch * (2 * sum(sizes) + sum(sizes[1:]))


def random_images(examples: int = EXAMPLES) -> Dataset:
    """Noise of MNIST's shape and type: what is in it costs no time."""
    g = torch.Generator().manual_seed(0)
    x = torch.randint(256, (examples, *SHAPE), dtype=torch.uint8, generator=g)
    split = Split(x, torch.randint(WIDTHS[-1], (examples,), generator=g))
    return sets.build("noise", split, split, WIDTHS[-1], source="random numbers", scale=255.0)


def replicates(n: int = 1) -> list[Replicate]:
    """Fresh copies, each with its own weights, order and a mask of 21 %, as a ticket has."""
    out = []
    for r in range(n):
        state = draw_state(LeNet, MODEL, SHAPE, WIDTHS[-1], [r, "init"])
        g = torch.Generator().manual_seed(r)
        mask = {name: torch.rand(t.shape, generator=g) < 0.21 for name, t in state.items() if name.endswith("weight")}
        out.append(Replicate(state, mask, supervised.Streams([r, "split"], [r, "order"])))
    return out


def engine(data: Dataset, stack: Sequence[Replicate]) -> Contender:
    """``ltcore.training.loop.train`` itself, without evaluation, timed where it asks whether to stop, every 64 steps."""
    segment = Segment(Optimizer("adam", LR), BATCH, 0, ENDLESS_IT, UNREAD, VALIDATION)
    module = skeleton(LeNet, MODEL, SHAPE, WIDTHS[-1])
    return training(lambda checkpoints: train(module, data, segment, stack, checkpoints), data.train.x.is_cuda)


def training(run: Callable[[Checkpoints], Any], on_gpu: bool) -> Contender:
    """A training run, timed where it asks whether to stop."""

    def turn(seconds: float) -> Turn:
        asked: list[float] = []

        def stop() -> bool:
            if on_gpu:
                torch.cuda.synchronize()
            asked.append(time.perf_counter())
            return len(asked) > 1 and asked[-1] - asked[0] >= seconds

        with contextlib.suppress(Stopped):
            run(Checkpoints(stop=stop))
        return (len(asked) - 1) * CHECK_EVERY_IT, asked[-1] - asked[0]

    return turn


def evaluation(data: Dataset, one: Replicate) -> Contender:
    """The engine's evaluation of the whole validation split, 5,000 examples; a step here is one evaluation."""
    batches = supervised.Batches(data, VALIDATION, BATCH, [one.streams], torch.float32)
    params = {name: t[None].clone() for name, t in one.state.items()}
    x, y = batches.fetch(batches.index(0))
    found = backends.choose(skeleton(LeNet, MODEL, SHAPE, WIDTHS[-1]), params, {}, supervised.loss, x, y)
    return _turns(lambda: supervised.evaluate(found, batches, "val"), warm_up=1)


class _Pictures(TorchDataset):
    """As ``torchvision.datasets.MNIST`` serves them: one PIL image at a time, through a transform."""

    def __init__(self, data: Dataset, transform: Callable[[Any], Tensor]):
        self.images, self.labels, self.transform = data.train.x[:, 0], data.train.y, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[i].numpy())), int(self.labels[i])


def dataloader(data: Dataset, workers: int, normalize: bool) -> Contender:
    """The usual loop: PIL images, ToTensor, a shuffling DataLoader, nn.Module, torch.optim.Adam. Start-up of the workers is not timed.

    Args:
        normalize: with torchvision's Normalize, as in PyTorch's own MNIST example and in open_lth; without it the inputs are the engine's.
    """
    from ltcore.data.torchvision_compat import torchvision_datasets

    torchvision_datasets()  # makes torchvision importable where its compiled operators are not
    from torchvision.transforms import Compose, Normalize, ToTensor

    transform = Compose([ToTensor(), Normalize((0.1307,), (0.3081,))]) if normalize else ToTensor()
    loader = DataLoader(_Pictures(data, transform), BATCH, shuffle=True, num_workers=workers)
    step = _torch_step()
    batches = _endless(lambda: loader)
    return _turns(lambda: step(*next(batches)))


def plain(data: Dataset) -> Contender:
    """A loop without a loader: inputs as float32 in memory, one randperm an epoch, nn.Module, torch.optim.Adam."""
    x, y = data.train.x.flatten(1).float() / 255, data.train.y
    step = _torch_step()
    batches = _endless(lambda: ((x[i], y[i]) for i in torch.randperm(len(x)).split(BATCH)))
    return _turns(lambda: step(*next(batches)))


def products() -> Contender:
    """The matrix products of :func:`needed_flop` and nothing else, into memory that stays: what a step costs at the least on this machine."""
    weights = [torch.randn(b, a) for a, b in zip(WIDTHS, WIDTHS[1:])]
    inputs, outputs = ([torch.randn(BATCH, n) for n in part] for part in (WIDTHS[:-1], WIDTHS[1:]))
    given, by_weight, by_input = ([torch.empty_like(t) for t in part] for part in (outputs, weights, inputs))

    def step() -> None:
        for i, w in enumerate(weights):
            torch.mm(inputs[i], w.t(), out=given[i])
            torch.mm(outputs[i].t(), inputs[i], out=by_weight[i])
            if i:
                torch.mm(outputs[i], w, out=by_input[i])

    return _turns(step)


def _torch_step() -> Callable[[Tensor, Tensor], None]:
    layers = [layer for a, b in zip(WIDTHS, WIDTHS[1:]) for layer in (nn.Linear(a, b), nn.ReLU())]
    module = nn.Sequential(nn.Flatten(), *layers[:-1])
    optimizer = torch.optim.Adam(module.parameters(), lr=LR)

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        F.cross_entropy(module(x), y).backward()
        optimizer.step()

    return step


def _endless(epoch: Callable[[], Any]) -> Iterator[Any]:
    while True:
        yield from epoch()


def _turns(step: Callable[[], Any], warm_up: int = WARM_UP_IT) -> Contender:
    """Calls ``step`` until the time is up, at least once."""

    def turn(seconds: float) -> Turn:
        for _ in range(warm_up):
            step()
        steps, started = 0, time.perf_counter()
        while True:
            step()
            steps, spent = steps + 1, time.perf_counter() - started
            if spent >= seconds:
                return steps, spent

    return turn
