"""Fixed features of patches: against SciPy's transform and filter, and loops over pixels."""

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from scipy.ndimage import gaussian_filter
from torch import Tensor

from qvit.errors import ModelError
from qvit.models.features import check_features, count_features, patch_features


def some_images(*shape: int) -> Tensor:
    torch.manual_seed(0)
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def differences(pixels: np.ndarray) -> list[float]:
    """Mean absolute differences within a patch to the right, below, and along both diagonals."""
    p = len(pixels)
    found: list[list[float]] = [[], [], [], []]
    for y in range(p):
        for x in range(p):
            for kind, (v, u) in enumerate(((y, x + 1), (y + 1, x), (y + 1, x + 1), (y + 1, x - 1))):
                if 0 <= v < p and 0 <= u < p:
                    found[kind].append(abs(pixels[v, u] - pixels[y, x]))
    return [float(np.mean(each)) for each in found]


@pytest.mark.parametrize(("kind", "patch"), [("dct", 4), ("dct", 3), ("contrast", 4), ("contrast", 6)])
def test_a_patch_is_described_as_by_hand(kind: str, patch: int) -> None:
    images = some_images(2, 3, 12, 12)
    found = patch_features(images, kind, patch)
    assert found.shape == (2, 3 * count_features(kind), 12 // patch, 12 // patch)
    pixels = images.double().numpy() / 255
    for b, c, y, x in [(0, 0, 0, 0), (1, 2, 1, 1), (0, 1, 0, 1)]:
        rows, columns = (slice(place * patch, (place + 1) * patch) for place in (y, x))
        cell = pixels[b, c, rows, columns]
        waves = dctn(cell, norm="ortho") / patch
        lowest = [waves[0, 0], waves[0, 1], waves[1, 0], waves[0, 2], waves[1, 1], waves[2, 0]]
        if kind == "dct":
            expected = [*lowest, *differences(cell)]
        else:
            sharp = pixels[b, c] - gaussian_filter(pixels[b, c], patch / 2, mode="reflect", truncate=3)
            expected = [*lowest[:3], *differences(sharp[rows, columns]), cell.std()]
        count = len(expected)
        np.testing.assert_allclose(found[b, c * count : (c + 1) * count, y, x], expected, atol=2e-6)


def test_floats_and_bytes_are_the_same_and_a_flat_patch_has_a_slope() -> None:
    images = some_images(2, 1, 8, 8)
    images[0] = 7
    exact = (images.double() / 255).requires_grad_()
    found = patch_features(exact, "contrast", 4)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), patch_features(images, "contrast", 4), atol=2e-6, rtol=0)
    found.sum().backward()
    assert exact.grad is not None
    assert exact.grad.isfinite().all()


@pytest.mark.parametrize(("side", "patch"), [(28, 4), (9, 9), (35, 7), (64, 8)])
def test_the_kernel_gives_what_torch_does(side: int, patch: int) -> None:
    """Of rows that end within a vector or fill it, and of a blur that reaches beyond both edges."""
    images = some_images(3, 2, side, side)
    for kind in ("dct", "contrast"):
        spelt_out = patch_features((images.double() / 255).requires_grad_(), kind, patch)
        torch.testing.assert_close(patch_features(images, kind, patch).double(), spelt_out, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["dct", "contrast"])
def test_no_bit_depends_on_other_models(kind: str) -> None:
    images = some_images(3, 5, 2, 12, 12)
    whole = patch_features(images, kind, 4)
    assert torch.equal(patch_features(images[1:2], kind, 4), whole[1:2])
    torch.testing.assert_close(patch_features(images[1], kind, 4), whole[1])


def test_what_there_is_not_is_refused() -> None:
    assert check_features("raw", 1) is None
    with pytest.raises(ModelError, match=r"features must be 'raw', 'dct' or 'contrast', got 'hog'"):
        check_features("hog", 4)
    with pytest.raises(ModelError, match=r"features='dct' describe patches of at least 3 pixels, got patch_size=2"):
        check_features("dct", 2)
