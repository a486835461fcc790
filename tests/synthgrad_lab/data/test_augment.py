"""Each augmented image is the original, shifted and perhaps mirrored."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from synthgrad_lab.data.augment import augment


def numbered(*shape):
    """Images whose pixels all differ, and none is 0."""
    return 1 + torch.arange(torch.tensor(shape).prod().item(), dtype=torch.float32).view(shape)


def crops(image, margin):
    """All images that augmentation can make of one: its shifts, and their mirror images."""
    _, height, width = image.shape
    padded = F.pad(image, [margin] * 4)
    places = [(i, j) for i in range(2 * margin + 1) for j in range(2 * margin + 1)]
    found = [padded[:, i : i + height, j : j + width] for i, j in places]
    return found + [crop.flip(2) for crop in found]


@given(st.integers(0, 4), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2))
def test_each_image_becomes_one_of_its_own_crops_with_all_channels(count, channels, height, width, margin):
    x = numbered(count, channels, height, width)
    before = x.clone()
    out = augment(x, margin)
    assert out.shape == x.shape
    assert out.dtype == x.dtype
    for image, made in zip(x, out, strict=True):
        assert any(torch.equal(made, crop) for crop in crops(image, margin))
    assert torch.equal(x, before)


@pytest.mark.parametrize("margin", [0, 1])
def test_all_shifts_and_mirror_images_are_equally_frequent(margin):
    image = numbered(2, 3, 3)
    wanted = crops(image, margin)
    out = augment(image.expand(400 * len(wanted), -1, -1, -1), margin)
    counts = [sum(torch.equal(made, crop) for made in out) for crop in wanted]
    assert sum(counts) == len(out)
    assert all(abs(count - 400) < 5 * 20 for count in counts)


def test_the_seed_determines_the_result():
    x = numbered(16, 1, 8, 8)
    first, second = augment(x), augment(x)
    torch.manual_seed(0)
    assert torch.equal(augment(x), first)
    assert not torch.equal(second, first)


@pytest.mark.parametrize("shape", [(0, 3, 32, 32), (5, 1, 28, 28)])
def test_the_usual_sizes(shape):
    out = augment(torch.rand(shape))
    assert out.shape == shape
    assert ((out >= 0) & (out < 1)).all()
