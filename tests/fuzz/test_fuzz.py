"""The short part of the fuzzers: the corpus and some seeded inputs of each kind, without beartype in between."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.__main__ import KINDS

INPUTS = 300


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_but_success_or_a_refusal_in_one_line(kind, tmp_path):
    folder = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "fuzz", "--here", kind, "--inputs", str(INPUTS), "--keep", str(tmp_path)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{INPUTS:,} inputs" in done.stdout
