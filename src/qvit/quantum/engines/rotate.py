"""Rotations of real amplitudes in plain torch, on any device; autograd sees through all of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from qvit.quantum.engines.tables import parity
from qvit.quantum.engines.tracing import Constant

Amplitudes = Float[Tensor, "g t a"]


@dataclass(frozen=True, eq=False)
class Partners:
    """For every basis state i its partner i ^ x and −(−1)^|i & z|, the sign with which it comes in.

    The partners of all are the amplitudes with the axes of the wires of x turned round: `sizes` are those of the axes
    when neighbours that are treated alike are one, `turned` says which, from the last. Mostly twice as fast as
    an index or more, and its gradient adds nothing into place: inductor gets a chain of such additions wrong.
    """

    sizes: tuple[int, ...]
    turned: tuple[int, ...]
    sign: Constant

    @classmethod
    def of(cls, x: int, z: int, n_wires: int) -> "Partners":
        """Return the partners under a string of these masks."""
        sizes: list[int] = []
        turned: list[int] = []
        for flipped, wires in groupby(range(n_wires), key=lambda wire: bool(x >> wire & 1)):
            new = [2 for _ in wires]  # wire 0 is the lowest bit of an index, the last axis
            sizes += new if flipped else [2 ** len(new)]
            turned += range(-len(sizes), -len(sizes) + len(new)) if flipped else ()
        sign = (2 * parity(np.arange(2**n_wires) & z) - 1).astype(np.int8)
        return cls(tuple(reversed(sizes)), tuple(turned), Constant(sign))

    def applied(self, state: Amplitudes) -> Amplitudes:
        """Return every amplitude's partner with its sign."""
        if self.turned:
            state = state.unflatten(-1, self.sizes).flip(self.turned).flatten(-len(self.sizes))
        return self.sign.tensor().to(state) * state


def rotate(state: Amplitudes, cos: Tensor, sin: Tensor, partners: Partners) -> Amplitudes:
    """Return the state after a rotation; `cos`, `sin` `(g, t or 1, 1)` are of half the angle."""
    return cos * state + sin * partners.applied(state)


def observe(state: Amplitudes, partners: Partners, sign: int) -> Float[Tensor, "g t"]:
    """Return the expectation value of one observable in real form, from the partners under its masks."""
    return -sign * (state * partners.applied(state)).sum(-1)


def product_state(cos: Tensor, sin: Tensor, wires: Sequence[int], n_wires: int) -> Amplitudes:
    """Return ⊗ (cos, sin) over `wires`, |0⟩ on the others, from `(g, t, p)` in the order of the wires given."""
    state = cos.new_ones(*cos.shape[:-1], 1)
    for wire in range(n_wires):  # wire 0 is the lowest bit of an index
        if wire in wires:
            k = wires.index(wire)
            state = torch.cat((state * cos[..., k, None], state * sin[..., k, None]), dim=-1)
        else:
            state = torch.cat((state, torch.zeros_like(state)), dim=-1)
    return state
