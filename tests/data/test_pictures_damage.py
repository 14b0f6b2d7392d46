"""Files of every kind, damaged at random: one line says so, or a picture comes out, and nothing else happens."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.sound_pictures import SOUND
from qvit.data.pictures import PictureError, read_pictures

MOST = max(map(len, SOUND.values()))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged") / "own.dcm"


def outcome(path: Path) -> list[np.ndarray]:
    """Return the pixels, if there are any."""
    found, message = [], "expected "
    try:
        found = [picture.pixels for picture in read_pictures(path, frames="all")]
    except PictureError as error:
        message = str(error)
    assert message.startswith("expected ")
    assert message.isprintable()
    assert len(message) < 400
    for pixels in found:
        assert pixels.ndim == 3
        assert pixels.shape[2] in (1, 3)
        assert 0 <= pixels.min() <= pixels.max() <= 255
    return found


@pytest.mark.long
@pytest.mark.parametrize("kind", SOUND)
def test_truncated_files_are_refused_or_lack_nothing(kind: str, path: Path) -> None:
    content = SOUND[kind]
    path.write_bytes(content)
    whole = outcome(path)
    assert whole
    step = math.ceil(len(content) / 60)
    for length in {*range(0, len(content), step), *range(len(content) - 12, len(content))}:
        path.write_bytes(content[:length])
        left = outcome(path)
        assert not left or all(np.array_equal(*pair) for pair in zip(left, whole, strict=True)), length


PLACES = st.integers(0, MOST) | st.integers(0, 300)  # headers are more often hit


@pytest.mark.long
@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(sorted(SOUND)),
    st.lists(st.tuples(PLACES, st.integers(0, 255)), max_size=12),
    st.none() | st.tuples(PLACES, PLACES, st.integers(0, 60)),
)
def test_damage_is_refused_or_makes_a_picture(
    path: Path, kind: str, changes: list[tuple[int, int]], moved: tuple[int, int, int] | None
) -> None:
    content = bytearray(SOUND[kind])
    for place, value in changes:
        content[place % len(content)] = value
    if moved is not None:
        start, end, length = moved
        content[start : start + length] = content[end : end + length]
    path.write_bytes(content)
    outcome(path)
