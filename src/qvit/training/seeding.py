"""One number fixes everything: every random stream is derived from the seed and its place in the run.

Nothing depends on what was drawn before, so a run resumed at epoch e draws what an uninterrupted one would. Nor does
it depend on other threads: torch's functions draw from global generators, which any thread of the process may use, so
here they are given generators that no other thread has.
"""

import inspect
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

# Places in a run; each has a stream of its own.
INIT, ORDER, NOISE, GUIDE = range(4)

# Functions of torch, and methods of tensors, that draw numbers and take a generator.
_DRAWING = {
    *("rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson"),
    *("rand_like", "randn_like", "randint_like"),
    *("uniform_", "normal_", "bernoulli_", "random_", "exponential_", "log_normal_", "geometric_", "cauchy_"),
}
# Functions of dropout; for those that drop whole channels, the number of dimensions of their values.
_DROPOUTS = {F.dropout: None, F.dropout1d: 3, F.dropout2d: 4, F.dropout3d: 5}


def derive(seed: int, *place: int) -> int:
    """Return a 63-bit seed for one place in a run."""
    return int(np.random.SeedSequence(seed, spawn_key=place).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator(seed: int, *place: int) -> torch.Generator:
    """Return a CPU generator for one place in a run."""
    return torch.Generator().manual_seed(derive(seed, *place))


@contextmanager
def seeded(seed: int, *place: int, alone: bool = True) -> Iterator[None]:
    """Fix what is drawn inside the block by the seed and the place; afterwards all generators are as before.

    The global generators of torch, NumPy and Python are seeded, and given their state back. Other threads may draw
    from them meanwhile, so with `alone` torch's drawing functions use other generators with the same numbers when this
    thread calls them. That costs some microseconds per call to torch, and does not reach what draws inside a C++
    function, such as attention with dropout.
    """
    derived = derive(seed, *place)
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 - that of others
    cuda = torch.cuda.default_generators if torch.cuda.is_initialized() else ()
    cuda_states = [one.get_state() for one in cuda]
    try:  # from here on, as Ctrl-C may come at any time
        random.seed(derived)
        np.random.seed(derived % 2**32)  # noqa: NPY002 - that of others
        # Not `torch.manual_seed`: that also seeds GPUs, now or when they are first used, which others use as well.
        for one in (torch.default_generator, *cuda):
            one.manual_seed(derived)
        with _OwnGenerators(derived) if alone else nullcontext():
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002 - that of others
        torch.set_rng_state(states[2])
        for one, state in zip(cuda, cuda_states, strict=True):
            one.set_state(state)


class _OwnGenerators(TorchFunctionMode):
    """Gives a generator to the functions that draw, as long as it is active; a mode belongs to one thread."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.generators: dict[torch.device, torch.Generator] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _DROPOUTS and not torch.compiler.is_compiling():
            return self._dropout(func, *args, **kwargs)
        if _draws(func) and kwargs.get("generator") is None:
            found = self._generator(_device(args, kwargs))
            kwargs = kwargs if found is None else kwargs | {"generator": found}
        return func(*args, **kwargs)

    def _dropout(
        self, func: Any, values: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        """Apply dropout as torch does on the CPU, from a generator, which torch's own functions do not take."""
        dimensions = _DROPOUTS[func]
        found = self._generator(values.device)
        if not training or not 0.0 < p < 1.0 or found is None or values.ndim != (dimensions or values.ndim):
            return func(values, p, training, inplace)
        shape = (*values.shape[:2], *(1 for _ in values.shape[2:])) if dimensions else values.shape
        noise = values.new_empty(shape).bernoulli_(1 - p, generator=found).div_(1 - p)
        return values.mul_(noise) if inplace else values * noise

    def _generator(self, device: torch.device) -> torch.Generator | None:
        if device.type == "meta" or torch.compiler.is_compiling():
            return None
        if device.type != "cpu":
            device = torch.empty(0, device=device).device  # "cuda" stands for one GPU, with a number
        if device not in self.generators:
            self.generators[device] = torch.Generator(device).manual_seed(self.seed)
        return self.generators[device]


@cache
def _draws(func: Callable[..., Any]) -> bool:
    if getattr(func, "__module__", None) == "torch.nn.init":
        return "generator" in inspect.signature(func).parameters
    return getattr(func, "__name__", "") in _DRAWING


def _device(args: Any, kwargs: Any) -> torch.device:
    first = args[0] if args else kwargs.get("tensor", kwargs.get("input"))
    if isinstance(first, Tensor):
        return first.device
    return torch.get_default_device() if kwargs.get("device") is None else torch.device(kwargs["device"])
