"""Index tables that let the statevector kernel run without looking at a single bit.

Two neighbouring rotations are applied together, to four amplitudes e, e^x₁, e^x₂, e^x₁^x₂ at a time, so that each is
loaded and stored once. The e are listed such that the sign of the first rotation is + there; the list is split where
the sign of the second changes.
"""

from dataclasses import dataclass

import numpy as np

from qvit.quantum.engines.real import RealProgram, parity

# Columns of `Tables.steps`.
FIRST, SECOND, X1, X2, SIGN1, SIGN2, START, MIDDLE, STOP, STEP = range(10)  # STEP is how many there are before it
_LOOK_AHEAD = 16


@dataclass(frozen=True)
class Tables:
    """`steps` `(s, 9)`: one or two rotations each; see the names of the columns.

    SECOND is −1 for a rotation alone. SIGN1 relates the first rotation's sign at e^x₂ to that at e, SIGN2 the
    second's at e^x₁ to that at e. `bases[START:MIDDLE]` are the e where the second's sign is +, up to STOP where it
    is −. `prefix` `(2^p,)` are the basis states of the product state; rotation k turns the first 2ᵏ of them into
    twice as many. `folded` are the observables found by folding probabilities, `fold` `(2ⁿ,)` is the order that
    allows it; `direct` are the others.
    """

    steps: np.ndarray
    bases: np.ndarray
    prefix: np.ndarray
    folded: np.ndarray
    fold: np.ndarray
    direct: np.ndarray


def _single(index: np.ndarray, x: int, z: int) -> np.ndarray:
    """Return one basis state of each pair {e, e^x}: the one with sign +."""
    low = index[index & (x & -x) == 0]
    return np.where(parity(low & z) == 0, low, low ^ x)


def _double(index: np.ndarray, x1: int, z1: int, x2: int, z2: int) -> tuple[np.ndarray, np.ndarray]:
    """Return one basis state of each four, sign + for the first rotation, and the second rotation's sign there."""
    pivot1 = x1 & -x1
    reduced = x2 ^ x1 if x2 & pivot1 else x2
    low = index[(index & pivot1 == 0) & (index & (reduced & -reduced) == 0)]
    e = np.where(parity(low & z1) == 0, low, low ^ x1)
    if (x2 & z1).bit_count() % 2 == 0:  # a step by x₂ keeps the first sign and flips the second
        e = np.where(parity(e & z2) == 0, e, e ^ x2)
    elif (x1 & z2).bit_count() % 2 == 0:  # a step by x₁^x₂ keeps the first sign and flips the second
        e = np.where(parity(e & z2) == 0, e, e ^ x1 ^ x2)
    return e, 1 - 2 * parity(e & z2)


def _paired(program: RealProgram) -> list[tuple[int, int]]:
    """Return rotations after the prefix in pairs, −1 for none; the second commutes with all that lie in between."""
    waiting = list(range(program.n_prefix, program.n_rotations))
    x, z = program.x.tolist(), program.z.tolist()

    def commute(a: int, b: int) -> bool:
        return ((x[a] & z[b]).bit_count() + (z[a] & x[b]).bit_count()) % 2 == 0

    pairs = []
    while waiting:
        first = waiting.pop(0)
        for place, other in enumerate(waiting[:_LOOK_AHEAD]):
            if x[other] != x[first] and all(commute(other, between) for between in waiting[:place]):
                pairs.append((first, waiting.pop(place)))
                break
        else:
            pairs.append((first, -1))
    return pairs


def _steps(program: RealProgram) -> tuple[np.ndarray, np.ndarray]:
    index = np.arange(2**program.n_wires)
    x, z = program.x.tolist(), program.z.tolist()
    steps, bases, start = [], [], 0
    for a, b in _paired(program):
        if b < 0:
            e = _single(index, x[a], z[a])
            steps.append((a, b, x[a], 0, 1, 1, start, start + len(e), start + len(e)))
        else:
            e, sign = _double(index, x[a], z[a], x[b], z[b])
            e = np.concatenate((e[sign > 0], e[sign < 0]))
            sign1, sign2 = (1 - 2 * (mask.bit_count() % 2) for mask in (x[b] & z[a], x[a] & z[b]))
            middle = start + int((sign > 0).sum())
            steps.append((a, b, x[a], x[b], sign1, sign2, start, middle, start + len(e)))
        bases.append(e)
        start += len(e)
    table = np.concatenate(bases) if bases else np.zeros(0)
    return np.array(steps, dtype=np.int64).reshape(-1, STEP), table.astype(np.int32)


def _independent(masks: list[int]) -> tuple[list[int], list[int]]:
    """Return which masks are linearly independent of those before them, and the bits that lead them."""
    reduced: dict[int, int] = {}
    chosen = []
    for place, mask in enumerate(masks):
        while mask and mask.bit_length() - 1 in reduced:
            mask ^= reduced[mask.bit_length() - 1]
        if mask:
            reduced[mask.bit_length() - 1] = mask
            chosen.append(place)
    return chosen, list(reduced)


def make_tables(program: RealProgram) -> Tables:
    """Return the tables of a program; 2ⁿ⁻² numbers for every two rotations."""
    n = program.n_wires
    index = np.arange(2**n)
    steps, bases = _steps(program)
    bits = [int(x).bit_length() - 1 for x in program.x[: program.n_prefix]]
    prefix = sum(((np.arange(2 ** len(bits)) >> k & 1) << bit for k, bit in enumerate(bits)), np.zeros(1, np.int64))
    xs, zs, signs = program.observables.T
    diagonal = [o for o in range(len(xs)) if xs[o] == 0 and zs[o] != 0 and signs[o] != 0]
    chosen, leads = _independent([int(zs[o]) for o in diagonal])
    folded = [diagonal[place] for place in chosen]
    masks = [int(zs[o]) for o in folded] + [1 << bit for bit in range(n) if bit not in leads]
    place = sum((parity(index & mask) << k for k, mask in enumerate(masks)), np.zeros(1, np.int64))
    return Tables(
        steps=steps,
        bases=bases,
        prefix=prefix.astype(np.int32),
        folded=np.array(folded, dtype=np.int64),
        fold=np.argsort(place).astype(np.int32),
        direct=np.array([o for o in range(len(xs)) if o not in folded], dtype=np.int64),
    )


HEADER = 12  # numbers before the first section
SECTIONS = ("rotations", "observables", "loads", "steps", "bases", "prefix", "fold", "folded", "direct")


def encode(program: RealProgram) -> np.ndarray:
    """Return a program and its tables as one row of int32, the form in which the operator takes them.

    It begins with the number of wires, the number of prefix rotations, and where each of `SECTIONS` starts and the
    last one stops. `rotations` holds x, z and column of each rotation.
    """
    made = make_tables(program)
    rotations = np.stack((program.x, program.z, program.dynamic), axis=1)
    parts = [rotations, program.observables, program.loads.array]
    parts += [made.steps, made.bases, made.prefix, made.fold, made.folded, made.direct]
    starts = HEADER + np.cumsum([0, *(part.size for part in parts)])
    header = [program.n_wires, program.n_prefix, *starts]
    return np.concatenate([header, *(part.ravel() for part in parts)]).astype(np.int32)


def section(code: np.ndarray, name: str) -> np.ndarray:
    """Return a section of an encoded program."""
    place = 2 + SECTIONS.index(name)
    return code[code[place] : code[place + 1]]
