"""Work in blocks of a vector's length, and in parts that threads share."""

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

VECTOR_BYTES = 64
_WORTH_A_THREAD = 2e6  # amplitude updates, some 150 µs; a thread takes about 30 µs to wake


@functools.cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="qvit")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork


def in_parts(run: Callable[[int, int], Any], parts: int, work: float) -> None:
    """Call `run(first, last)` for all parts, shared among as many threads as torch would use.

    The parts do not depend on the number of threads, so neither do the results.
    """
    threads = max(1, min(torch.get_num_threads(), parts, int(work / _WORTH_A_THREAD)))
    bounds = [parts * k // threads for k in range(threads + 1)]
    waiting = [_pool(threads - 1).submit(run, bounds[k], bounds[k + 1]) for k in range(1, threads)]
    run(bounds[0], bounds[1])
    for future in waiting:
        future.result()


def in_blocks(values: Tensor, at_once: int = 1) -> Tensor:
    """Return values `(a, b, t)` as a contiguous tensor, with t filled up by zeros to a multiple of `at_once` blocks."""
    lanes, tokens = at_once * VECTOR_BYTES // values.element_size(), values.shape[-1]
    padded = -(-tokens // lanes) * lanes
    if padded == tokens:
        return values.contiguous()
    out = values.new_zeros(*values.shape[:-1], padded)
    out[..., :tokens] = values
    return out
