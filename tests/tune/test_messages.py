"""Every message of an error of `qvit.tune` is written down whole, with its values, in a test that looks at it."""

from pathlib import Path

import pytest

import qvit.tune
from suite.messages import missing, raised, written


@pytest.mark.long
def test_every_message_is_in_a_test() -> None:
    sources = Path(qvit.tune.__file__).parent.glob("*.py")
    tests = Path(__file__).parent.glob("*.py")
    assert missing(raised(*sources), written(*tests)) == []
