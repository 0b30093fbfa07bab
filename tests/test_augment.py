"""Random crop and flip: against a literal crop, as a pure function of (key, step), and inside training."""
import dataclasses

import pytest
import torch

from ltcore.data.augment import crop_flip
from ltcore.data.dataset import Split, build
from ltcore.models import LeNet
from ltcore.recipe import Evaluate, Optimizer
from ltcore.training import supervised
from ltcore.training.loop import Replicate, Segment, train
from ltcore.training.supervised import Streams

KEYS = torch.tensor([11, 12])
STEP = torch.tensor(3)


def images(copies: int = 2, batch: int = 5, channels: int = 3, size: int = 6) -> torch.Tensor:
    """Images whose pixels are all different and never 0, so that padding shows."""
    n = copies * batch * channels * size * size
    return (torch.arange(n) + 1).to(torch.int32).reshape(copies, batch, channels, size, size)


def candidates(image: torch.Tensor, pad: int) -> list[torch.Tensor]:
    """Every crop of the zero-padded image, as it is and mirrored: sliced, not indexed."""
    _, h, w = image.shape
    padded = torch.zeros(image.shape[0], h + 2 * pad, w + 2 * pad, dtype=image.dtype)
    padded[:, pad : pad + h, pad : pad + w] = image
    crops = [padded[:, y : y + h, x : x + w] for y in range(2 * pad + 1) for x in range(2 * pad + 1)]
    return [*crops, *(c.flip(2) for c in crops)]


def test_each_image_is_one_of_its_own_crops():
    x = images()
    out = crop_flip(x, KEYS, STEP, pad=2)
    for image, made in zip(x.flatten(0, 1), out.flatten(0, 1)):
        assert sum(torch.equal(made, c) for c in candidates(image, 2)) == 1


def test_all_places_and_both_sides_occur_about_equally_often():
    x = images(1, 4000, 1, 3)
    made = crop_flip(x, KEYS[:1], STEP, pad=1).flatten(0, 1)
    counts = torch.zeros(18)
    for image, out in zip(x.flatten(0, 1), made):
        counts[next(i for i, c in enumerate(candidates(image, 1)) if torch.equal(out, c))] += 1
    assert counts.min() > 4000 / 18 - 6 * (4000 / 18) ** 0.5 and counts.max() < 4000 / 18 + 6 * (4000 / 18) ** 0.5


def test_pure_function_of_key_and_step():
    x = images(1).expand(2, -1, -1, -1, -1)
    once, again = (crop_flip(x, KEYS, STEP) for _ in range(2))
    assert torch.equal(once, again)
    assert not torch.equal(once, crop_flip(x, KEYS, STEP + 1))
    assert not torch.equal(once[0], once[1])  # replicates draw for themselves
    for r in range(2):  # and do not see each other
        assert torch.equal(once[r : r + 1], crop_flip(x[r : r + 1], KEYS[r : r + 1], STEP))


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(1, 256, (60, 1, 6, 6), generator=generator, dtype=torch.uint8)
    y = torch.randint(0, 3, (60,), generator=generator)
    return build("noise", Split(x[:40], y[:40]), Split(x[40:], y[40:]), 3, source="test", scale=255.0)


def streams(seed: int, augment: bool = True) -> Streams:
    return Streams([seed, "split"], [seed, "order"], None, [seed, "augment"] if augment else None)


def trained(data, seeds, start=0, stop=12, states=None, augment=True):
    module = LeNet((1, 6, 6), 3, (8,))
    torch.manual_seed(1)
    first = {n: torch.randn_like(p, dtype=torch.float64) for n, p in module.state_dict().items()}
    given = states or [(first, None)] * len(seeds)
    replicates = [Replicate(s, {}, streams(seed, augment), o) for seed, (s, o) in zip(seeds, given)]
    segment = Segment(Optimizer("sgd", 0.1, momentum=0.9), 8, start, stop, Evaluate(100, ("end",)), 8, "fp64")
    return train(module, data, segment, replicates)


def test_stacked_equals_alone_and_augmentation_matters(data):
    together = trained(data, (0, 1))
    for r, seed in enumerate((0, 1)):
        alone = trained(data, (seed,))[0]
        assert all((alone.state[n] - t).abs().max() < 1e-10 for n, t in together[r].state.items())
    plain = trained(data, (0,), augment=False)[0]
    assert any(not torch.equal(plain.state[n], t) for n, t in together[0].state.items())


def test_a_second_segment_resumes_the_augmentation_by_index(data):
    straight = trained(data, (0,))[0]
    half = trained(data, (0,), stop=5)[0]
    resumed = trained(data, (0,), start=5, states=[(half.state, half.optimizer)])[0]
    assert all(torch.equal(resumed.state[n], t) for n, t in straight.state.items())


def test_only_training_batches_are_augmented(data):
    batches = supervised.Batches(data, 8, 8, [streams(0)], torch.float32)
    plain = supervised.Batches(data, 8, 8, [dataclasses.replace(streams(0), augment=None)], torch.float32)
    index = batches.index(0)
    assert torch.equal(batches.fetch(index)[0], plain.fetch(index)[0])
    assert torch.equal(batches.chunk("val", 0, 8)[0], plain.chunk("val", 0, 8)[0])
    assert not torch.equal(batches.augmented(index, torch.tensor(0))[0], plain.augmented(index, torch.tensor(0))[0])
