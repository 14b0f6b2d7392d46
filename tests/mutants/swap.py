"""Put a mutant into a process that has imported the code already: give the functions it changes their new code.

That saves every trial the seconds of an import. It works for what a function does when it is called, not for what
happens once, by the import, nor for what Numba compiles.
"""

import gc
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType

from mutants.places import Mutant


def swap(tree: Path, mutant: Mutant) -> int:
    """Change the functions of this process that contain a mutant; return how many there were."""
    path = str(tree / mutant.path)
    new = {_key(code): code for code in _codes(compile(mutant.source, path, "exec", dont_inherit=True))}
    changed = 0
    for function in functions().get(path, ()):
        code = function.__code__
        if mutant.line in _lines(code):
            found = new.get(_key(code))
            if found is not None and found.co_freevars == code.co_freevars:
                function.__code__ = found
                changed += 1
    return changed


@cache
def functions() -> dict[str, list[FunctionType]]:
    """Return the functions that there are, by the file they are of.

    Looked for once, before forks are made: to look at every object copies its page of memory.
    """
    frozen = gc.get_freeze_count()  # as our tests do with all that they import: such objects would not be seen
    gc.unfreeze()
    found: dict[str, list[FunctionType]] = {}
    for one in gc.get_objects():
        if type(one) is FunctionType:
            found.setdefault(one.__code__.co_filename, []).append(one)
    if frozen:
        gc.freeze()
    return found


def _key(code: CodeType) -> tuple[str, int]:
    return code.co_qualname, code.co_firstlineno


def _lines(code: CodeType) -> range:
    """Return the lines of a function, from the first to the last."""
    lines = [line for part in _codes(code) for _, _, line in part.co_lines() if line]
    return range(code.co_firstlineno, max(lines) + 1)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
