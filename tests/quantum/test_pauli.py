"""Pauli strings against dense matrices: products, commutation, what Clifford gates do to them."""

import itertools
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qvit.quantum import Pauli, X, Y, Z
from qvit.quantum.pauli import CLIFFORDS, Frame, bits, quarter_turn

I2 = np.eye(2)
LETTERS = {"I": I2, "X": np.array([[0, 1], [1, 0]]), "Y": np.array([[0, -1j], [1j, 0]]), "Z": np.diag([1, -1])}
ONE_WIRE = {
    "H": np.array([[1, 1], [1, -1]]) / np.sqrt(2),
    "S": np.diag([1, 1j]),
    **{name: LETTERS[name] for name in "XYZ"},
}
TWO_WIRES = {
    "CNOT": np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]]),
    "CZ": np.diag([1, 1, 1, -1]),
    "SWAP": np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]),
}


def kron(*factors: np.ndarray) -> np.ndarray:
    return reduce(np.kron, factors)


def dense(string: Pauli, n: int) -> np.ndarray:
    """Written out from the letters, wire 0 first."""
    letters = dict(zip(string.wires, string.word, strict=True))
    return string.sign * kron(*(LETTERS[letters.get(wire, "I")] for wire in range(n)))


def embedded(gate: str, wires: tuple[int, ...], n: int) -> np.ndarray:
    """A gate on any wires of n, by reordering the axes of its tensor."""
    small = ONE_WIRE[gate] if gate in ONE_WIRE else TWO_WIRES[gate]
    rest = [wire for wire in range(n) if wire not in wires]
    order = np.argsort([*wires, *rest])
    full = np.kron(small, np.eye(2 ** len(rest))).reshape([2] * (2 * n))
    return full.transpose([*order, *(order + n)]).reshape(2**n, 2**n)


def every_string(n: int, *, signs: bool = False) -> list[Pauli]:
    strings = [Pauli.of("".join(letters)) for letters in itertools.product("IXYZ", repeat=n)]
    return strings + [-string for string in strings] if signs else strings


@pytest.mark.parametrize("n", [1, 2])
def test_products_and_commutation(n: int) -> None:
    for a, b in itertools.product(every_string(n, signs=True), repeat=2):
        k, product = a.times(b)
        left, right = dense(a, n) @ dense(b, n), dense(b, n) @ dense(a, n)
        assert product.sign == 1
        assert k in range(4)
        np.testing.assert_array_equal(left, 1j**k * dense(product, n))
        assert a.commutes(b) == np.array_equal(left, right)


@settings(max_examples=40, deadline=None)
@given(words=st.tuples(*[st.text("IXYZ", min_size=3, max_size=3)] * 2))
def test_products_on_three_wires(words: tuple[str, str]) -> None:
    a, b = map(Pauli.of, words)
    k, product = a.times(b)
    np.testing.assert_array_equal(dense(a, 3) @ dense(b, 3), 1j**k * dense(product, 3))


@pytest.mark.parametrize("n", [1, 2])
def test_quarter_turns(n: int) -> None:
    strings = every_string(n, signs=True)
    matrices = np.stack([dense(string, n) for string in strings])
    for axis, turns in itertools.product(every_string(n)[1:], (-1, 0, 1, 2, 3, 5)):
        half = turns * np.pi / 4
        u = np.cos(half) * np.eye(2**n) - 1j * np.sin(half) * dense(axis, n)
        turned = np.stack([dense(quarter_turn(axis, turns, string), n) for string in strings])
        np.testing.assert_allclose(turned, u.conj().T @ matrices @ u, atol=1e-12)


PLACED = [
    (gate, wires, n)
    for gate in CLIFFORDS
    for n in (1, 2, 3)
    for wires in itertools.permutations(range(n), 1 if gate in ONE_WIRE else 2)
]


def test_every_clifford_gate_is_tried() -> None:
    assert set(CLIFFORDS) == {*ONE_WIRE, *TWO_WIRES}


@pytest.mark.parametrize("gate", CLIFFORDS)
def test_a_frame_of_one_gate(gate: str) -> None:
    """On two wires with either sign; on three the gate's wires are not all neighbours."""
    for wires, n in [(wires, n) for name, wires, n in PLACED if name == gate and (n == 2 or sum(wires) == 2)]:
        frame, matrix = Frame(n), embedded(gate, wires, n)
        frame.apply(gate, wires)
        for string in every_string(n, signs=n < 3):
            expected = matrix.conj().T @ dense(string, n) @ matrix
            np.testing.assert_allclose(dense(frame.pull(string), n), expected, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(placed=st.lists(st.sampled_from([case for case in PLACED if case[2] == 3]), max_size=12), data=st.data())
def test_a_frame_of_many_gates(placed: list[tuple[str, tuple[int, ...], int]], data: st.DataObject) -> None:
    frame, matrix = Frame(3), np.eye(8)
    for gate, wires, _ in placed:
        frame.apply(gate, wires)
        matrix = embedded(gate, wires, 3) @ matrix
    string = data.draw(st.sampled_from(every_string(3, signs=True)))
    expected = matrix.conj().T @ dense(string, 3) @ matrix
    np.testing.assert_allclose(dense(frame.pull(string), 3), expected, atol=1e-10)


def test_what_a_string_says_of_itself() -> None:
    string = -(X(0) @ Y(2) @ Z(70))
    assert (string.wires, string.word, string.n_y, str(string)) == ((0, 2, 70), "XYZ", 1, "-X0·Y2·Z70")
    assert string.support == 1 | 1 << 2 | 1 << 70
    assert string == -Pauli.of("ZXY", (70, 0, 2))
    assert str(Pauli.of("II")) == "I"
    assert -string == Pauli.of("XYZ", (0, 2, 70))
    assert (-X(0) @ -Z(1)).sign == 1
    assert bits(0b1011) == (0, 1, 3)
    assert bits(0) == ()
