"""A Pauli program as rotations of a real vector, the form in which the engines that hold amplitudes run it.

If every rotation string has an odd number of Y, exp(−iθP/2) is real and so are the amplitudes. Any other program is
made real by one more wire, which says whether an amplitude is the real or the imaginary part: there the factor i is
the real matrix −iY, so a string P with an even number of Y becomes −Y⊗P, which has an odd number. This costs as much
as complex arithmetic where that is needed, and half as much where it is not.

In basis state i (bit w is wire w) and its partner j = i ^ x the rotation is
    ψᵢ' = cos(θ/2)·ψᵢ − σ·sin(θ/2)·ψⱼ,   ψⱼ' = cos(θ/2)·ψⱼ + σ·sin(θ/2)·ψᵢ,   σ = (−1)^|i & z|;
a further sign from the letters of P is folded into the angle.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from qvit.quantum.circuit import Angle
from qvit.quantum.engines.layout import Constant, LinearAngles
from qvit.quantum.pauli import Frame, Pauli
from qvit.quantum.program import PauliProgram, Rotation, phase_frame

_Map = Callable[[Pauli], Pauli]


@dataclass(frozen=True, eq=False)
class RealProgram:
    """Rotations of 2ⁿ real amplitudes, n = `n_wires` with the extra wire if there is one.

    The first `n_prefix` rotations are RY on wires of their own: they make a product state. `x`, `z` `(r,)` are the
    masks of each rotation; `dynamic` `(r,)` says which column of the input angles it takes, −1 for none.
    `observables` `(o, 3)` holds x, z and the sign, 0 where the expectation value is zero by symmetry.
    """

    n_wires: int
    n_prefix: int
    x: np.ndarray
    z: np.ndarray
    dynamic: np.ndarray
    observables: np.ndarray
    loads: Constant
    angles: LinearAngles

    @property
    def n_rotations(self) -> int:
        """The number of rotations."""
        return len(self.x)


@lru_cache(maxsize=256)
def real_program(program: PauliProgram) -> RealProgram:
    """Return the program in real form."""
    program, n = _made_real(program)
    rotations, n_prefix = _product_first(program)
    signed = [_signed(rotation.angle, rotation.pauli) for rotation in rotations]
    angles = LinearAngles.of(signed, program.n_inputs, program.n_weights)
    return RealProgram(
        n_wires=n,
        n_prefix=n_prefix,
        x=np.array([rotation.pauli.x for rotation in rotations], dtype=np.int64),
        z=np.array([rotation.pauli.z for rotation in rotations], dtype=np.int64),
        dynamic=angles.columns.array,
        observables=np.array([_entry(o) for o in program.observables], dtype=np.int64).reshape(-1, 3),
        loads=Constant(np.array(program.amplitudes, dtype=np.int64)),
        angles=angles,
    )


def _made_real(program: PauliProgram) -> tuple[PauliProgram, int]:
    """Return the program with an odd number of Y in the string of every rotation, and its number of wires."""
    turned = phase_frame(program)
    if turned is not None:
        frame = Frame(program.n_wires)
        for wire in range(program.n_wires):
            for _ in range(3 if turned >> wire & 1 else 0):  # P ↦ S·P·S†
                frame.apply("S", (wire,))
        return _mapped(program, frame.pull, frame.pull), program.n_wires
    phase = 1 << program.n_wires

    def joined(string: Pauli, odd: bool) -> Pauli:
        if (string.n_y % 2 == 1) == odd:
            return string
        return Pauli(string.x | phase, string.z | phase, -string.sign)

    mapped = _mapped(program, lambda string: joined(string, odd=True), lambda string: joined(string, odd=False))
    return mapped, program.n_wires + 1


def _mapped(program: PauliProgram, on_rotation: _Map, on_observable: _Map) -> PauliProgram:
    rotations = []
    for rotation in program.rotations:
        string = on_rotation(rotation.pauli)
        rotations.append(Rotation(replace(string, sign=1), rotation.angle * string.sign))
    return replace(program, rotations=tuple(rotations), observables=tuple(map(on_observable, program.observables)))


def _product_first(program: PauliProgram) -> tuple[list[Rotation], int]:
    """Move rotations RY, one per wire, to the front where they commute with all before them."""
    first: list[Rotation] = []
    rest: list[Rotation] = []
    taken = 0
    for rotation in program.rotations:
        string = rotation.pauli
        single = string.x == string.z and string.x.bit_count() == 1 and not string.x & taken
        if single and not program.amplitudes and all(string.commutes(earlier.pauli) for earlier in rest):
            first.append(rotation)
            taken |= string.x
        else:
            rest.append(rotation)
    return first + rest, len(first)


def _signed(angle: Angle, string: Pauli) -> Angle:
    """Return the angle with the sign of −i·iⁿ, n the number of Y, folded in."""
    return angle if string.n_y % 4 == 1 else -angle


def _entry(observable: Pauli) -> tuple[int, int, int]:
    sign = 0 if observable.n_y % 2 else observable.sign * (1 - observable.n_y % 4)
    return observable.x, observable.z, sign


# --- the same in torch, on any device; autograd sees through all of it ---

Amplitudes = Float[Tensor, "g t a"]


def parity(values: np.ndarray) -> np.ndarray:
    """Return the number of set bits modulo 2."""
    values = values.copy()
    for shift in (32, 16, 8, 4, 2, 1):
        values ^= values >> shift
    return values & 1


@dataclass(frozen=True, eq=False)
class Partners:
    """The partner i ^ x of every basis state i, and its sign −(−1)^|i & z|.

    The partners of all states are the amplitudes with the axes of the wires in x reversed: `sizes` are the lengths of
    the axes, with neighbours that are treated alike merged, and `turned` are those to reverse, counted from the last.
    This is mostly at least twice as fast as an index, and its gradient adds nothing in place: inductor gets a chain
    of such additions wrong.
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
