import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ltcore.data import Dataset, Split, build, fingerprint, from_user, split
from ltcore.errors import UsageError, UserError

# Dataset

def toy(n=10):
    x = torch.arange(n * 12, dtype=torch.uint8).reshape(n, 3, 2, 2)
    return build("toy", Split(x, torch.arange(n) % 3), Split(x[:2], torch.arange(2)), 3, source="made here", scale=(10, 20, 40), shift=(0, 4, 0))


def test_prepare_is_raw_minus_shift_by_scale_for_any_leading_shape():
    data = toy()
    raw = torch.tensor([[[20, 20], [20, 20]]] * 3, dtype=torch.uint8)  # (C, 2, 2)
    expected = torch.tensor([2.0, 0.8, 0.5]).view(3, 1, 1).expand(3, 2, 2)
    assert torch.equal(data.prepare(raw), expected)
    assert torch.equal(data.prepare(raw.expand(5, 4, 3, 2, 2)), expected.expand(5, 4, 3, 2, 2))
    assert data.prepare(raw, torch.float64).dtype == torch.float64
    assert raw.dtype == torch.uint8 and raw[0, 0, 0] == 20


def test_to_moves_every_tensor():
    moved = toy().to("meta")
    assert {t.device.type for t in (moved.train.x, moved.train.y, moved.test.x, moved.test.y, moved.scale, moved.shift)} == {"meta"}


def test_fingerprint_is_sha256_of_type_shape_and_bytes():
    expected = hashlib.sha256(b"torch.uint8(2, 1)\x01\x02torch.int64(1,)" + (7).to_bytes(8, "little")).hexdigest()
    assert fingerprint([torch.tensor([[1], [2]], dtype=torch.uint8), torch.tensor([7])]) == expected


def test_fingerprint_sees_values_shape_type_order_and_scale():
    x, y = torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64)
    part, other = Split(x, y), Split(x + 1, y)
    sets = [
        build("a", part, part, 1, source="s"), build("a", part, other, 1, source="s"), build("a", other, part, 1, source="s"),
        build("a", Split(x.reshape(4, 1, 2), y), part, 1, source="s"), build("a", Split(x.double(), y), part, 1, source="s"),
        build("a", part, part, 1, source="s", scale=2.0), build("a", part, part, 1, source="s", shift=2.0),
    ]
    assert len({one.fingerprint for one in sets}) == len(sets)
    assert build("b", part, part, 1, source="elsewhere").fingerprint == sets[0].fingerprint


@given(n=st.integers(1, 300), data=st.data(), seed=st.integers(0, 2**40))
def test_split_is_a_partition_of_exact_size_and_a_function_of_the_generator(n, data, seed):
    n_val = data.draw(st.integers(0, n - 1))
    one = Split(torch.zeros(n, 1), torch.zeros(n, dtype=torch.int64))
    dataset = Dataset("d", one, one, 1, torch.tensor(1.0), None, "s", "")
    train, val = split(dataset, n_val, torch.Generator().manual_seed(seed))
    assert (len(train), len(val), train.dtype, val.dtype) == (n - n_val, n_val, torch.int64, torch.int64)
    assert sorted(train.tolist() + val.tolist()) == list(range(n))
    again = split(dataset, n_val, torch.Generator().manual_seed(seed))
    assert torch.equal(train, again[0]) and torch.equal(val, again[1])


def test_split_depends_on_the_generator_and_refuses_impossible_sizes():
    draws = {tuple(split(toy(100), 30, torch.Generator().manual_seed(seed))[1].tolist()) for seed in range(5)}
    assert len(draws) == 5
    for n_val in (-1, 100, 101):
        with pytest.raises(UsageError, match=f"cannot take {n_val} validation examples from 100"):
            split(toy(100), n_val, torch.Generator())


# Users' own sets

def arrays(n=6):
    rng = np.random.default_rng(0)
    return [rng.random((n, 5)), np.arange(n) % 3, rng.random((3, 5)), np.arange(3)]


def test_user_floats_are_taken_as_they_are():
    data = from_user("mine", tuple(arrays()))
    assert (data.name, data.classes, data.source, data.input_shape) == ("mine", 3, "user", (5,))
    assert data.train.x.dtype == torch.float32 and data.train.y.dtype == torch.int64
    assert torch.equal(data.prepare(data.train.x), torch.tensor(arrays()[0]).float())


@pytest.mark.parametrize("shape", [(4, 8, 8), (4, 1, 8, 8)])
def test_user_images_get_a_channel_and_lie_in_0_to_1(shape):
    x = torch.full(shape, 255, dtype=torch.uint8)
    data = from_user("mine", (x, torch.arange(4, dtype=torch.uint8), x, torch.zeros(4, dtype=torch.int32)))
    assert data.input_shape == (1, 8, 8) and bool((data.prepare(data.test.x) == 1).all())


def test_user_dataset_is_kept_and_its_fingerprint_is_ours():
    given = toy()
    forged = Dataset(**{**vars(given), "name": "other", "fingerprint": "made up"})
    data = from_user("mine", forged)
    assert (data.name, data.fingerprint, data.source) == ("mine", given.fingerprint, "made here")
    assert torch.equal(data.prepare(data.train.x), given.prepare(given.train.x))


def test_user_big_endian_and_strided_arrays():
    x_train, y_train, x_test, y_test = arrays()
    data = from_user("mine", (x_train.astype(">f4")[::-1], y_train.astype(">i2"), x_test.astype("f4"), y_test))
    assert torch.equal(data.train.x, torch.tensor(x_train[::-1].copy()).float()) and data.train.y.tolist() == y_train.tolist()


BAD = [
    (0, lambda v: v.astype(np.int64), r"x_train is int64 \(6, 5\); it must be uint8 images or floats"),
    (0, lambda v: v.astype(np.uint8), r"x_train is uint8 \(6, 5\); images are"),
    (0, lambda v: np.where(v == v[0, 0], np.nan, v), "x_train holds values that are not finite"),
    (0, lambda v: v[:5], "x_train has 5 examples and y_train 6"),
    (0, lambda v: v[:, 0], r"x_train is float64 \(6,\)"),
    (0, lambda v: v.tolist(), "x_train must be a tensor or a numpy array of numbers, not a list"),
    (0, lambda v: v.astype(str), "x_train must be a tensor or a numpy array of numbers, not an array of <U"),
    (0, lambda v: v.astype(np.longdouble), "x_train must be a tensor or a numpy array of numbers, not an array of"),
    (1, lambda v: v.astype(float), r"y_train is float64 \(6,\); labels are whole numbers"),
    (1, lambda v: v[:, None], r"y_train is int64 \(6, 1\); labels"),
    (1, lambda v: v > 0, "y_train is bool"),
    (1, lambda v: v - 1, "y_train holds label -1; labels count from 0"),
    (2, lambda v: v[:, :4], r"an example of x_train is float32 \(5,\), of x_test float32 \(4,\); they must be alike"),
    (2, lambda v: v[:0], "x_test has no examples"),
    (3, lambda v: v + 1, "y_test holds label 3, y_train has 0 to 2 only"),
]


@pytest.mark.parametrize(("which", "spoil", "message"), BAD, ids=[message[:30] for *_, message in BAD])
def test_bad_user_sets_get_one_clear_line(which, spoil, message):
    value = arrays()
    value[which] = spoil(value[which])
    with pytest.raises(UserError, match=message) as caught:
        from_user("mine", value)
    assert str(caught.value).startswith("data set mine: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [None, 3, {"x": 1}, (1, 2, 3), "text"])
def test_user_functions_that_return_something_else(value):
    with pytest.raises(UserError, match="data set mine: return a Dataset or the four arrays"):
        from_user("mine", value)


def test_user_dataset_with_too_few_classes():
    with pytest.raises(UserError, match="it says 2 classes but holds label 2"):
        from_user("mine", Dataset(**{**vars(toy()), "classes": 2}))
