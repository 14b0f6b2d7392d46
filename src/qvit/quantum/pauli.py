"""Pauli strings: products, commutation, and how Clifford gates move them.

A string on any number of wires is two bit masks and a sign: bit w of `x` and of `z` say which of I, X, Z, Y stands
on wire w. Python's integers have as many bits as are needed, so a thousand wires are nothing special.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from qvit.errors import CircuitError
from qvit.files import shown
from qvit.quantum.limits import MOST_WIRES, series, whole

_BITS = {"I": (0, 0), "X": (1, 0), "Y": (1, 1), "Z": (0, 1)}
_LETTERS = {bits: letter for letter, bits in _BITS.items()}


@dataclass(frozen=True, slots=True)
class Pauli:
    """A Hermitian Pauli string: `sign` times the product over wires of X, Y = iXZ, Z or the identity.

    `X(0) @ Z(2)` is the string X on wire 0 and Z on wire 2; `-Z(1)` has the other sign.
    """

    x: int
    z: int
    sign: int = 1

    @classmethod
    def of(cls, word: str, wires: Sequence[int] | None = None) -> "Pauli":
        """Return the string that has letter `word[k]` on wire `wires[k]`, or on wire k without `wires`.

        Raises `CircuitError` for a letter other than I, X, Y, Z, a wire named twice or a different number of wires.
        """
        if not isinstance(word, str) or len(word) > MOST_WIRES:
            raise CircuitError(f"A Pauli word is at most {MOST_WIRES} letters, got {word!r:.80}.")
        wires = range(len(word)) if wires is None else wires
        if not isinstance(wires, range):
            wires = series("The wires of a Pauli word", wires, most=MOST_WIRES)
            wires = [whole("A wire", wire, least=-MOST_WIRES, most=MOST_WIRES - 1) for wire in wires]
        if len(wires) != len(word) or len(set(wires)) != len(word) or any(wire < 0 for wire in wires):
            raise CircuitError(
                f"The Pauli word '{shown(word)}' needs {len(word)} distinct wire(s), got {tuple(wires)!r:.80}."
            )
        x = z = 0
        for letter, wire in zip(word, wires, strict=True):
            if letter not in _BITS:
                raise CircuitError(f"'{shown(letter)}' in the Pauli word '{shown(word)}' is none of I, X, Y, Z.")
            x |= _BITS[letter][0] << wire
            z |= _BITS[letter][1] << wire
        return cls(x, z)

    @property
    def support(self) -> int:
        """The mask of the wires on which this is not the identity."""
        return self.x | self.z

    @property
    def wires(self) -> tuple[int, ...]:
        """The wires on which this is not the identity, ascending."""
        return bits(self.support)

    @property
    def n_y(self) -> int:
        """The number of Y in the string; with an odd number it is imaginary, otherwise real."""
        return (self.x & self.z).bit_count()

    @property
    def word(self) -> str:
        """The letters on `wires`, in their order."""
        return "".join(_LETTERS[self.x >> w & 1, self.z >> w & 1] for w in self.wires)

    def commutes(self, other: "Pauli") -> bool:
        """Return whether the two strings commute; otherwise they anticommute."""
        return ((self.x & other.z).bit_count() + (self.z & other.x).bit_count()) % 2 == 0

    def times(self, other: "Pauli") -> tuple[int, "Pauli"]:
        """Return (k, R) with self · other = iᵏ R, R of sign +1 and k from 0 to 3."""
        product = Pauli(self.x ^ other.x, self.z ^ other.z)
        k = self.n_y + other.n_y - product.n_y + 2 * (self.z & other.x).bit_count() + 1 - self.sign + 1 - other.sign
        return k % 4, product

    def __neg__(self) -> "Pauli":
        return Pauli(self.x, self.z, -self.sign)

    def __matmul__(self, other: "Pauli") -> "Pauli":
        if self.support & other.support:
            raise CircuitError(f"{self} and {other} share a wire; each wire of a Pauli string has one letter.")
        return Pauli(self.x | other.x, self.z | other.z, self.sign * other.sign)

    def __str__(self) -> str:
        letters = (f"{letter}{wire}" for letter, wire in zip(self.word, self.wires, strict=True))
        return ("-" if self.sign < 0 else "") + ("·".join(letters) or "I")


def X(wire: int) -> Pauli:  # noqa: N802  the letters of the field
    """Return X on one wire."""
    return Pauli.of("X", (wire,))


def Y(wire: int) -> Pauli:  # noqa: N802
    """Return Y on one wire."""
    return Pauli.of("Y", (wire,))


def Z(wire: int) -> Pauli:  # noqa: N802
    """Return Z on one wire."""
    return Pauli.of("Z", (wire,))


def bits(mask: int) -> tuple[int, ...]:
    """Return the positions of the bits that are set, ascending."""
    found = []
    while mask:
        low = mask & -mask
        found.append(low.bit_length() - 1)
        mask ^= low
    return tuple(found)


def quarter_turn(axis: Pauli, turns: int, string: Pauli) -> Pauli:
    """Return U† · string · U for U = exp(−iπ/4 · turns · axis), a Clifford gate."""
    turns %= 4
    if turns == 0 or axis.commutes(string):
        return string
    if turns == 2:
        return -string
    k, product = axis.times(string)  # U†SU = S·exp(−iπ/2·t·P) = cos(tπ/2)·S − i·sin(tπ/2)·S·P = ±i·P·S
    k += 1 if turns == 1 else 3
    return product if k % 4 == 0 else -product


# g† · X_w · g and g† · Z_w · g of every Clifford gate, as words on the gate's own wires.
_CLIFFORDS: dict[str, tuple[tuple[Pauli, ...], tuple[Pauli, ...]]] = {
    "H": ((Pauli.of("Z"),), (Pauli.of("X"),)),
    "S": ((-Pauli.of("Y"),), (Pauli.of("Z"),)),
    "X": ((Pauli.of("X"),), (-Pauli.of("Z"),)),
    "Y": ((-Pauli.of("X"),), (-Pauli.of("Z"),)),
    "Z": ((-Pauli.of("X"),), (Pauli.of("Z"),)),
    "CNOT": ((Pauli.of("XX"), Pauli.of("IX")), (Pauli.of("ZI"), Pauli.of("ZZ"))),
    "CZ": ((Pauli.of("XZ"), Pauli.of("ZX")), (Pauli.of("ZI"), Pauli.of("IZ"))),
    "SWAP": ((Pauli.of("IX"), Pauli.of("XI")), (Pauli.of("IZ"), Pauli.of("ZI"))),
}
CLIFFORDS = tuple(_CLIFFORDS)


class Frame:
    """The map P ↦ C† · P · C of Pauli strings by the Clifford gates C so far (Aaronson and Gottesman 2004)."""

    def __init__(self, n_wires: int) -> None:
        self._x = [Pauli(1 << w, 0) for w in range(n_wires)]
        self._z = [Pauli(0, 1 << w) for w in range(n_wires)]

    def apply(self, gate: str, wires: Sequence[int]) -> None:
        """Append one of `CLIFFORDS`."""
        images_x, images_z = _CLIFFORDS[gate]
        moved_x = [self._pull_local(word, wires) for word in images_x]
        moved_z = [self._pull_local(word, wires) for word in images_z]
        for wire, new_x, new_z in zip(wires, moved_x, moved_z, strict=True):
            self._x[wire], self._z[wire] = new_x, new_z

    def pull(self, string: Pauli) -> Pauli:
        """Return C† · string · C."""
        return self._pull_local(string, range(len(self._x)))

    def _pull_local(self, string: Pauli, wires: Sequence[int]) -> Pauli:
        power, product = string.n_y + 1 - string.sign, Pauli(0, 0)
        for place in string.wires:  # string = ± iⁿ ∏ X^x Z^z
            for mask, images in ((string.x, self._x), (string.z, self._z)):
                if mask >> place & 1:
                    k, product = product.times(images[wires[place]])
                    power += k
        return product if power % 4 == 0 else -product
