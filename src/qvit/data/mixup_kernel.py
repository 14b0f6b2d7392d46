"""Weighted means of images, compiled."""

import numpy as np

from qvit.cpu.compiled import jit


@jit
def mix_images(images, others, shares, size, out, first, last):
    """Write images `first` to `last`, each of `size` bytes, mixed with the others; rounded to the nearest byte."""
    number = np.float32
    for n in range(first, last):
        share, rest, begin = shares[n], number(1) - shares[n], np.uint64(n * size)
        for k in range(np.uint64(size)):
            value = number(images[begin + k]) * share + number(others[begin + k]) * rest
            out[begin + k] = np.uint8(np.int32(value + number(0.5)))
