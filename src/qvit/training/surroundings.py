"""The state of the process that numbers depend on, which is set for a run and restored afterwards.

A run is determined by its configuration. Other code in the same process may have changed how torch computes, such as
its default type or the precision of matrix products; that must not affect the run, nor the run that code.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.backends import cuda, mha, opt_einsum

Setting = tuple[Callable[[], Any], Callable[[Any], object], Any]  # how to read it, how to set it, what is wanted

# Precisions of float32 products as a fresh process has them; "none" is as good as "ieee".
_PRECISIONS = {
    **{("mkldnn", of): ("none", "ieee") for of in ("matmul", "conv", "rnn")},
    ("cuda", "matmul"): ("none", "ieee"),
    **{("cuda", of): ("tf32",) for of in ("conv", "rnn")},
}
_KINDS = ("cpu", "cuda", "xpu", "mps")  # of devices that may have an autocast


@contextmanager
def surroundings(threads: int | None = None) -> Iterator[None]:
    """Compute inside the block as in a fresh process, on `threads` CPU threads, as sums depend on their number.

    That means gradients and no inference mode, float32 as the default type, the CPU as the default device, no autocast,
    float32 products in full precision, all fast kernels allowed, and subnormal numbers kept. These stay as they are:
    random generators (see `seeding`), warnings, anomaly detection, and whether algorithms are to be deterministic.
    """
    with ExitStack() as restored:
        if torch.is_inference_mode_enabled():
            restored.enter_context(torch.inference_mode(False))
        if torch.get_default_device().type != "cpu":
            restored.enter_context(torch.device("cpu"))
        restored.enter_context(np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"))
        for read, write, wanted in _settings(threads):
            restored.callback(_set, read, write, read())  # first, as Ctrl-C may come at any time
            _set(read, write, wanted)
        yield


def _set(read: Callable[[], Any], write: Callable[[Any], object], wanted: Any) -> None:
    if read() != wanted:
        write(wanted)


def _settings(threads: int | None) -> Iterator[Setting]:
    if threads is not None:
        yield torch.get_num_threads, torch.set_num_threads, threads
    yield torch.get_default_dtype, torch.set_default_dtype, torch.float32
    yield torch.is_grad_enabled, torch.set_grad_enabled, True
    yield _flushes, torch.set_flush_denormal, False
    for kind in _KINDS:
        if torch.amp.is_autocast_available(kind):
            yield partial(torch.is_autocast_enabled, kind), partial(torch.set_autocast_enabled, kind), False
    yield mha.get_fastpath_enabled, mha.set_fastpath_enabled, True
    yield cuda.flash_sdp_enabled, cuda.enable_flash_sdp, True  # for the CPU, too
    yield cuda.mem_efficient_sdp_enabled, cuda.enable_mem_efficient_sdp, True
    yield cuda.math_sdp_enabled, cuda.enable_math_sdp, True
    # `torch.backends` has these as well, but they cannot be read there if others were set in torch's newer way.
    yield torch._C._get_mkldnn_enabled, torch._C._set_mkldnn_enabled, True
    yield torch._C._get_mkldnn_deterministic, torch._C._set_mkldnn_deterministic, False
    yield torch._C._get_cudnn_enabled, torch._C._set_cudnn_enabled, True
    yield torch._C._get_cudnn_benchmark, torch._C._set_cudnn_benchmark, False
    yield torch._C._get_nnpack_enabled, torch._C._set_nnpack_enabled, True
    yield _matmul_precision, _set_matmul_precision, "highest"
    for (backend, of), wanted in _PRECISIONS.items() if hasattr(torch._C, "_get_fp32_precision_getter") else ():
        found = torch._C._get_fp32_precision_getter(backend, of)
        if found not in wanted:
            yield _raw_precision(backend, of), partial(torch._C._set_fp32_precision_setter, backend, of), wanted[-1]
    if opt_einsum.is_available():
        yield lambda: opt_einsum.set_flags()[:2], lambda value: opt_einsum.set_flags(*value), (True, "auto")


def _matmul_precision() -> str:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # set in torch's newer way, see `_PRECISIONS`
        return "highest"


def _set_matmul_precision(value: str) -> None:
    torch.set_float32_matmul_precision(value)


def _raw_precision(backend: str, of: str) -> Callable[[], str]:
    """Return a function that reads a precision as it was set; torch gives the one in force, perhaps the backend's."""

    def read() -> str:
        found, inherited = (torch._C._get_fp32_precision_getter(backend, which) for which in (of, "all"))
        return "none" if found == inherited else found

    return read


def _flushes() -> bool:
    return bool(torch.tensor(5e-324, dtype=torch.float64).mul(1.0) == 0.0)
