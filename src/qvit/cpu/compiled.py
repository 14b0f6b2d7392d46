"""Kernels compiled by Numba, and their machine code kept on disk.

A file holds one function, for one signature and one processor. Its name, and the checksum before its content, depend
on everything that the machine code depends on. A file that is damaged, renamed, or made for another processor or from
an older source is therefore not found or not trusted; the function is then compiled again and the file replaced.
Problems with these files never raise: where none can be written, every process compiles for itself. Files are written
whole or not at all, so that processes which compile at the same time do not interfere.

The checksum guards against accidents. Anyone who may write to the folder can run code, as with Python's `__pycache__`.
"""

import hashlib
import inspect
import pickle
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

import llvmlite
import numba
from numba.core.caching import CompileResultCacheImpl, _Cache
from numba.core.dispatcher import Dispatcher
from numba.core.serialize import dumps

from qvit.errors import QvitError
from qvit.files import read_bytes, write_atomic

_MOST = 2**26  # bytes of a file; kernels take some hundred thousand
_VERSIONS = f"{sys.implementation.cache_tag} numba {numba.__version__} llvmlite {llvmlite.__version__}"
_SUFFIX = ".kernel"
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "_nrt": False}
_pickled: Callable[[Any], bytes] = dumps


def jit(function: Callable[..., Any]) -> Any:
    """Compile a function of vectors and contiguous arrays, without reference counts and the GIL, and keep it on disk.

    Wrappers around the function, such as the tests' run-time checks of shapes, are not compiled.
    """
    function = inspect.unwrap(function)
    compiled: Any = numba.njit(**_OPTIONS)(function)
    compiled._cache = KeptOnDisk(function)
    return compiled


class KeptOnDisk(_Cache):
    """The cache of one function's compiled forms, which Numba reads before it compiles and writes afterwards.

    It lies where Numba keeps its own: in `NUMBA_CACHE_DIR`, in `__pycache__` beside the source, or in the user's
    folder, whichever comes first and can be written to.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function, self._enabled = function, True
        self._numba: Any = None  # says where Numba would keep it, and turns compiled code into bytes

    @property
    def cache_path(self) -> str | None:
        """The folder of the files; None until it is known."""
        return self._numba.locator.get_cache_path() if self._numba else None

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled form, or None if there is none that can be trusted."""
        if not self._enabled:
            return None
        target_context.refresh()
        # Any error: a file may hold anything, and the function can always be compiled again.
        with suppress(Exception):
            path, key = self._place(sig, target_context.codegen())
            content = read_bytes(path, most=_MOST)
            checksum, payload = content[:32], content[32:]
            if checksum == _checksum(key, payload):
                return self._numba.rebuild(target_context, pickle.loads(payload))
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Write a compiled form, and delete those of the function's older sources."""
        if not self._enabled:
            return
        with suppress(OSError, QvitError, RuntimeError, MemoryError):  # no folder, no permission, no space
            path, key = self._place(sig, data.codegen)
            if not self._numba.check_cachable(data):
                return
            self._numba.locator.ensure_cache_path()
            payload = _pickled(self._numba.reduce(data))
            write_atomic(path, _checksum(key, payload) + payload, durable=False)
            self._drop(path, keep=path.name.split("~")[1])

    def _place(self, sig: Any, codegen: Any) -> tuple[Path, str]:
        """Return a compiled form's path and all that it depends on; raises `RuntimeError` if there is no folder."""
        if self._numba is None:
            kept: Any = CompileResultCacheImpl
            self._numba = kept(self._function)
        source = fingerprint(self._function)
        key = repr((_VERSIONS, source, sig, codegen.magic_tuple()))
        name = f"{self._prefix()}~{source[:16]}~{hashlib.sha256(key.encode()).hexdigest()[:16]}{_SUFFIX}"
        return Path(self._numba.locator.get_cache_path()) / name, key

    def _prefix(self) -> str:
        name = re.sub(r"[^\w.]", "", f"{Path(inspect.getfile(self._function)).stem}.{self._function.__qualname__}")
        return f"{name}.{sys.implementation.cache_tag}"

    def _drop(self, path: Path, *, keep: str) -> None:
        for dot in ("", "."):  # with a dot: left behind half-written
            for other in path.parent.glob(f"{dot}{self._prefix()}~*"):
                if other.name.split("~")[1] != keep:
                    with suppress(OSError):
                        other.unlink()

    def enable(self) -> None:
        """Use the files from now on."""
        self._enabled = True

    def disable(self) -> None:
        """Ignore the files from now on, so that every process compiles."""
        self._enabled = False

    def flush(self) -> None:
        """Delete every compiled form of this function."""
        if self.cache_path is not None:
            self._drop(Path(self.cache_path) / "any", keep="")


def _checksum(key: str, payload: bytes) -> bytes:
    return hashlib.sha256(f"{len(key)} {key}".encode() + payload).digest()


def fingerprint(function: Callable[..., Any]) -> str:
    """Return a hash of everything that a function's machine code depends on, except signature and processor.

    That is its own code, that of every compiled function which it calls, the constants they refer to, and the
    sources that say what vectors are and how functions are compiled. Raises `TypeError` for a function that refers
    to a value that may change, `OSError` where there are no sources.
    """
    digest = hashlib.sha256()
    for source in ("vectors.py", "rows.py", "bundles.py", "trigonometry.py", "elementary.py", "compiled.py"):
        digest.update(pkgutil.get_data(__package__, source) or b"")
    waiting, seen = [function], set()
    while waiting:
        current = waiting.pop()
        for part in _parts(current):
            if isinstance(part, Dispatcher):
                part, found = part.py_func.__qualname__, part.py_func
                if found not in seen:
                    seen.add(found)
                    waiting.append(found)
            digest.update(f"{part}\n".encode())
    return digest.hexdigest()


_NAMED = (ModuleType, FunctionType, BuiltinFunctionType, type)  # identified by their names


def _parts(function: Any) -> Iterator[Any]:
    """Yield what a function is made of: compiled functions as they are, all else as text."""
    names: set[str] = set()
    for code in _codes(function.__code__):
        yield code.co_code.hex()
        yield [repr(constant) for constant in code.co_consts if not isinstance(constant, CodeType)]
        yield code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
        names.update(code.co_names)
    yield repr(function.__defaults__)
    known = {name: function.__globals__[name] for name in sorted(names) if name in function.__globals__}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        known[name] = cell.cell_contents
    for name, value in known.items():
        yield name
        if isinstance(value, Dispatcher):
            yield value
        elif isinstance(value, bool | int | float | str | tuple | None):
            yield repr(value)
        elif isinstance(value, _NAMED) or type(value).__module__.startswith("numba."):
            yield getattr(value, "__qualname__", repr(type(value)))
        else:
            raise TypeError(f"{function.__qualname__} refers to {name}, a {type(value).__name__} that may change.")


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
