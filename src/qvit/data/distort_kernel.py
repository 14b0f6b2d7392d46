"""Images seen through affine maps, and with other contrast, compiled: every pixel is interpolated between four.

`images` and `out` are bytes, `(b · c · h · w)`; a row of `maps` (b, 7), of doubles, says that pixel (column j, row i)
of a result shows the place (m₀·j + m₁·i + m₂, m₃·j + m₄·i + m₅) of its image, in pixels, and by what factor differences
to the image's mean grow. Places outside are moved to the edge.

Of each channel, `fours` holds each pixel with those to its right, below, and right below, in four bytes: so one
number is fetched for a pixel of the result, and what is done with it goes through vectors. The other arrays in the
room, one number for each pixel, are the places and what is fetched from them, and the distances to their left and upper
neighbours.
"""

import numpy as np

from qvit.cpu.compiled import jit


@jit
def _find(maps, n, h, w, places, right, down):
    """Find for each pixel of a result which pixel of the image is left above what it shows, and how far."""
    a, b, c, d, e, f = maps[n, 0], maps[n, 1], maps[n, 2], maps[n, 3], maps[n, 4], maps[n, 5]
    number, zero = np.float32, np.float32(0)
    last_x, last_y = number(w - 1), number(h - 1)
    for i in range(h):
        first_x, first_y = number(b * i + c), number(e * i + f)
        at = np.uint64(i * w)
        for j in range(np.uint64(w)):
            x, y = first_x + number(a) * number(np.int32(j)), first_y + number(d) * number(np.int32(j))
            x, y = zero if x < zero else x, zero if y < zero else y
            x, y = last_x if x > last_x else x, last_y if y > last_y else y
            column, row = np.int32(x), np.int32(y)
            places[at + j] = row * np.int32(w) + column
            right[at + j], down[at + j] = x - number(column), y - number(row)


@jit
def _gather(images, base, h, w, fours):
    """Put each pixel of a channel together with its neighbours; beyond an edge its pixels are repeated."""
    byte = np.uint32
    for i in range(h):
        row, below, at = base + np.uint64(i * w), base + np.uint64(min(i + 1, h - 1) * w), np.uint64(i * w)
        for j in range(np.uint64(w - 1)):
            upper = byte(images[row + j]) | byte(images[row + j + np.uint64(1)]) << byte(8)
            lower = byte(images[below + j]) | byte(images[below + j + np.uint64(1)]) << byte(8)
            fours[at + j] = upper | lower << byte(16)
        j = np.uint64(w - 1)
        fours[at + j] = (byte(images[row + j]) | byte(images[below + j]) << byte(16)) * byte(257)


@jit
def _interpolate(found, right, down, factor, offset, area, base, out):
    """Write the bytes of one channel of a result from the four pixels around each place."""
    number, whole, byte = np.float32, np.int32, np.uint32
    zero, most = number(0), number(255.5)
    for j in range(area):
        four = found[j]
        first, second = number(whole(four & byte(255))), number(whole(four >> byte(8) & byte(255)))
        third, fourth = number(whole(four >> byte(16) & byte(255))), number(whole(four >> byte(24)))
        upper, lower = first + right[j] * (second - first), third + right[j] * (fourth - third)
        value = (upper + down[j] * (lower - upper)) * factor + offset
        value = zero if value < zero else value
        value = most if value > most else value
        out[base + j] = np.uint8(whole(value))


@jit
def distort_images(images, maps, channels, h, w, out, fours, found, places, right, down, first, last):
    """Write images `first` to `last`, distorted; rounded to the nearest byte."""
    area = np.uint64(h * w)
    size = np.uint64(channels) * area
    for n in range(first, last):
        begin, total = np.uint64(n) * size, np.uint64(0)
        for k in range(size):
            total += np.uint64(images[begin + k])
        mean = float(total) / float(size)
        offset = np.float32((1.0 - maps[n, 6]) * mean + 0.5)
        _find(maps, n, h, w, places, right, down)
        for channel in range(channels):
            base = begin + np.uint64(channel) * area
            _gather(images, base, h, w, fours)
            for j in range(area):
                found[j] = fours[np.uint32(places[j])]
            _interpolate(found, right, down, np.float32(maps[n, 6]), offset, area, base, out)
