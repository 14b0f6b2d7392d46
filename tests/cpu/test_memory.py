"""Memory that is used again."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource
import sys

import numpy as np

from qvit.cpu.memory import reuse_memory

if sys.argv[1] == "reuse":
    reuse_memory()
np.ones(2**20, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for size in range(2**20, 2**20 + 2**16 * 100, 2**16):  # each larger than those before
    np.ones(size, np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.processes
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="others keep freed blocks anyway, or never")
def test_freed_blocks_are_not_got_again_page_by_page() -> None:
    faults = {
        how: int(subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, check=True).stdout)
        for how in ("not", "reuse")
    }
    pages = 100 * 2**22 // 4096  # the blocks of 4 MB on average
    assert faults["reuse"] < 0.1 * pages
    assert faults["not"] > 3 * faults["reuse"]
