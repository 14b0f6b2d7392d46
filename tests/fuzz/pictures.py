"""Files of pictures of every kind that is read, damaged, and made squares of."""

from pathlib import Path
from random import Random
from unittest.mock import patch

from data.sound_pictures import SOUND
from fuzz.harness import Kind
from qvit.data import pictures
from qvit.data.pictures import read_pictures
from qvit.data.squares import to_square

MOST_PIXELS = 10**6  # what a damaged header can ask for is to be in proportion to the small pictures
NUMBERS = (0, 1, 2, 3, 8, 16, 127, 128, 255, 256, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
HEADER = 300  # bytes at the beginning, which are more often changed


def _valid(random: Random) -> bytes:
    return random.choice([*SOUND.values()])


def _mutate(random: Random, content: bytes) -> bytes:
    damaged = bytearray(content)
    for _ in range(random.randint(1, 4)):
        place = random.randrange(min(len(damaged), random.choice((HEADER, len(content)))) or 1)
        way = random.random()
        if way < 0.4:
            damaged[place : place + 1] = bytes([random.choice((random.randrange(256), 0, 255))])
        elif way < 0.6:
            length = random.choice((1, 2, 4))
            number = random.choice(NUMBERS) % (1 << 8 * length)
            damaged[place : place + length] = number.to_bytes(length, random.choice(("little", "big")))
        elif way < 0.75:
            other = random.choice([*SOUND.values()])
            start = random.randrange(len(other))
            damaged[place : place + random.randrange(60)] = other[start : start + random.randrange(60)]
        elif way < 0.85:
            del damaged[place : place + random.choice((1, 2, 30, len(content)))]
        else:
            damaged[place:place] = damaged[place : place + random.randrange(200)]
    return bytes(damaged)


def _attempt(content: bytes, folder: Path) -> None:
    path = folder / "own.dcm"
    path.write_bytes(content)
    with patch.object(pictures, "MOST_PIXELS", MOST_PIXELS):
        found = read_pictures(path, frames="all")
    for picture in found[:3]:
        assert 0 <= picture.pixels.min() <= picture.pixels.max() <= 255
        for size in (5, 64):
            assert to_square(picture.pixels, size).shape[:2] == (size, size)


KIND = Kind("pictures", 40_000, _valid, _mutate, _attempt)
