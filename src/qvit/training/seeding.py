"""One number fixes everything: every random stream is derived from the seed and its place in the run.

Nothing depends on what was drawn before, so a run resumed at epoch e draws what an uninterrupted one would.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

# Places in a run; each has a stream of its own.
INIT, ORDER, NOISE, GUIDE = range(4)


def derive(seed: int, *place: int) -> int:
    """Return a 63-bit seed for one place in a run."""
    return int(np.random.SeedSequence(seed, spawn_key=place).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator(seed: int, *place: int) -> torch.Generator:
    """Return a CPU generator for one place in a run."""
    return torch.Generator().manual_seed(derive(seed, *place))


@contextmanager
def seeded(seed: int, *place: int) -> Iterator[None]:
    """Seed torch's global generators inside the block and restore them afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(derive(seed, *place))
        yield


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use so many CPU threads inside the block; sums depend on it in their last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
