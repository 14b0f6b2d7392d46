"""Images seen through affine maps, and with other contrast, compiled: every pixel is interpolated between four.

`images` and `out` are bytes, `(b · c · h · w)`; a row of `distortions` (b, 5), of doubles, says what an image's angle,
size, shifts and contrast are, in units of the most that happens at strength 1. Places outside are moved to the edge.

Of each channel, `fours` holds each pixel with those to its right, below, and right below, in four bytes: so one
number is fetched for a pixel of the result, and what is done with it goes through vectors. What is beyond an edge does
not matter there, as places at an edge are no way towards it. The other arrays in the room, one number for each pixel,
are the places and what is fetched from them, and the distances to their left and upper neighbours.
"""

import math

import numpy as np

from qvit.cpu.compiled import jit

# The most that happens to an image at strength 1.
TURN = math.radians(8)
ZOOM = 1.1  # the most it is enlarged or shrunk
SHIFT = 0.07  # of the side
CONTRAST = 0.1


@jit
def _map(distortions, n, h, w):
    """Return the numbers by which pixel (j, i) of a result shows the place (a·j + b·i + c, d·j + e·i + f)."""
    angle, size = TURN * distortions[n, 0], ZOOM ** distortions[n, 1]
    cosine, sine = math.cos(angle) / size, math.sin(angle) / size
    middle_x, middle_y = 0.5 * (w - 1), 0.5 * (h - 1)
    from_x, from_y = middle_x + w * SHIFT * distortions[n, 2], middle_y + h * SHIFT * distortions[n, 3]
    c, f = middle_x - cosine * from_x + sine * from_y, middle_y - sine * from_x - cosine * from_y
    return cosine, -sine, c, sine, cosine, f


@jit
def _find(distortions, n, h, w, places, right, down):
    """Find for each pixel of a result which pixel of the image is left above what it shows, and how far."""
    a, b, c, d, e, f = _map(distortions, n, h, w)
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
def _gather(images, base, w, area, fours):
    """Put each pixel of a channel together with its neighbours; beyond an edge that may be any."""
    byte, one, last = np.uint32, np.uint64(1), area - np.uint64(1)
    inner = area - w - one if area > w else np.uint64(0)
    right, below, both = base + one, base + w, base + w + one  # sums inside the loop keep it from being vectorised
    for j in range(inner):
        upper = byte(images[base + j]) | byte(images[right + j]) << byte(8)
        fours[j] = upper | byte(images[below + j]) << byte(16) | byte(images[both + j]) << byte(24)
    for j in range(inner, area):
        upper = byte(images[base + j]) | byte(images[base + min(j + one, last)]) << byte(8)
        fours[j] = upper | byte(images[base + min(j + w, last)]) << byte(16)


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
def distort_images(images, distortions, channels, h, w, out, fours, found, places, right, down, first, last):
    """Write images `first` to `last`, distorted; rounded to the nearest byte."""
    width, area = np.uint64(w), np.uint64(h * w)
    size = np.uint64(channels) * area
    for n in range(first, last):
        begin, total = np.uint64(n) * size, np.uint64(0)
        for k in range(size):
            total += np.uint64(images[begin + k])
        contrast = 1.0 + CONTRAST * distortions[n, 4]
        offset = np.float32((1.0 - contrast) * (float(total) / float(size)) + 0.5)
        _find(distortions, n, h, w, places, right, down)
        for channel in range(channels):
            base = begin + np.uint64(channel) * area
            _gather(images, base, width, area, fours)
            for j in range(area):
                found[j] = fours[np.uint32(places[j])]
            _interpolate(found, right, down, np.float32(contrast), offset, area, base, out)
