"""Compiled kernels on disk: whatever becomes of the files, the next process computes the same as without them."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import pytest
from numba.core.caching import _CacheLocator
from numba.core.codegen import CPUCodegen

from qvit.cpu import compiled
from qvit.cpu.compiled import KeptOnDisk, fingerprint, jit


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    return tmp_path


def run(number: float = 1.5) -> bool:
    """Compile a function, or load it, as a new process would; return whether it was loaded."""

    @jit
    def twice_and_one(number):  # type: ignore[no-untyped-def]
        return number + number + 1

    assert twice_and_one(number) == 2 * number + 1
    return sum(twice_and_one.stats.cache_hits.values()) == 1


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if not path.is_dir())


def test_what_was_compiled_is_kept(folder: Path) -> None:
    assert [run(), run(), run(3), run(3), run()] == [False, True, False, True, True], "a file for each signature"
    assert len(files(folder)) == 2


def flip(place: float) -> Callable[[Path], object]:
    def damage(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[int(place * (len(content) - 1))] ^= 4
        path.write_bytes(content)

    return damage


def replace(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "one byte": lambda path: path.write_bytes(b"\x80"),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "text": lambda path: path.write_text("<html>"),
    **{f"a bit at {place}": flip(place) for place in (0.0, 0.01, 0.2, 0.5, 0.8, 1.0)},
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_made_anew(name: str, folder: Path) -> None:
    run()
    (path,) = files(folder)
    DAMAGES[name](path)
    assert not run()
    assert files(folder) == [path]
    assert run()


SPECIAL = {"a folder": Path.mkdir, "a pipe": os.mkfifo, "endless": lambda path: path.symlink_to("/dev/zero")}


@pytest.mark.parametrize("name", SPECIAL)
def test_what_is_no_file_is_not_read(name: str, folder: Path) -> None:
    run()
    (path,) = files(folder)
    replace(path, SPECIAL[name])
    assert not run()
    assert run() == (name != "a folder"), "replaced, but a folder's place is taken"


@pytest.mark.parametrize("payload", [b"", b"\x80\x05", b"cno.such.module\nthing\n.", b"N."])
def test_content_that_only_the_checksum_likes(payload: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a Numba that writes otherwise and calls itself the same."""
    keys: list[str] = []
    checksum = compiled._checksum
    monkeypatch.setattr(compiled, "_checksum", lambda key, content: keys.append(key) or checksum(key, content))
    run()
    files(folder)[0].write_bytes(checksum(keys[-1], payload) + payload)
    assert [run(), run()] == [False, True]


@pytest.mark.long
def test_a_file_under_the_name_of_another_is_not_believed(folder: Path) -> None:
    """Two signatures; two processors are the same case, and machine code of the wrong one ends the process."""
    run(1.5)
    run(3)
    first, second = files(folder)
    first.rename(folder / "aside")
    second.rename(first)
    (folder / "aside").rename(second)
    assert [run(1.5), run(3), run(1.5), run(3)] == [False, False, True, True]


def test_every_processor_has_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run()
    with monkeypatch.context() as patch:
        patch.setattr(CPUCodegen, "magic_tuple", lambda _: ("elsewhere", "another", "+none"))
        assert [run(), run()] == [False, True]
    assert len(files(folder)) == 2
    assert run(), "and they do not drive each other out"


def test_without_a_folder_every_process_compiles(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(_CacheLocator, "ensure_cache_path", refuse)
    assert [run(), run()] == [False, False]
    assert files(folder) == []


def test_a_folder_that_became_read_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        assert [run(), run()] == [False, False]
    assert files(folder) == []


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file may grow beyond 1,000 bytes: the write fails half-way, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_is_done_without(folder: Path) -> None:
    assert [run(), run()] == [False, False]
    assert files(folder) == [], "and nothing half-written is left"


# --- sources -----------------------------------------------------------------------------------------------

HELPER = "from qvit.cpu.compiled import jit\nFACTOR = {}\n\n@jit\ndef scale(x):\n    return FACTOR * x\n"
KERNEL = "@jit\ndef kernel(x):\n    return scale(x) + 1\n"


def module(source: str, path: Path, **names: Any) -> ModuleType:
    path.write_text(source)
    made = ModuleType(path.stem)
    made.__dict__.update(names, __file__=str(path))
    exec(compile(source, path, "exec"), made.__dict__)
    return made


def scaled(folder: Path, helper: str) -> tuple[float, bool]:
    """Return what a kernel gives whose helper is in a file of its own, and whether it was loaded."""
    scale = module(helper, folder / "helper.py").scale
    kernel = module(KERNEL, folder / "kernel.py", jit=jit, scale=scale).kernel
    return kernel(10.0), len(kernel.stats.cache_hits) == 1


@pytest.mark.long
def test_a_kernel_follows_the_helpers_of_other_files(tmp_path: Path) -> None:
    """Numba's own cache looks at the kernel's file alone and would give 21 again."""
    two, three = HELPER.format(2), HELPER.format(3)
    assert [scaled(tmp_path, two), scaled(tmp_path, two)] == [(21.0, False), (21.0, True)]
    assert scaled(tmp_path, three) == (31.0, False), "a constant"
    assert scaled(tmp_path, three.replace("*", "-")) == (-6.0, False), "an operation"
    assert scaled(tmp_path, "# Words.\n" + three.replace("*", "-")) == (-6.0, True), "no more than that"
    assert len(list(tmp_path.rglob("*.kernel"))) == 2, "what older sources left is dropped"
    other = module(KERNEL.replace("scale(x)", "x"), tmp_path / "a_kernel.py", jit=jit).kernel
    assert other(10.0) == 11.0
    assert scaled(tmp_path, two) == (21.0, False)
    assert len(list(tmp_path.rglob("*.kernel"))) == 3, "and what is another's is not, whatever it is called"


def test_a_kernel_follows_what_vectors_are(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run()
    monkeypatch.setattr(compiled.pkgutil, "get_data", lambda *_: b"vectors of 32 bytes")
    assert [run(), run()] == [False, True]


def test_values_that_cannot_be_followed_are_refused() -> None:
    table = [1.0, 2.0]

    def lookup(place):  # type: ignore[no-untyped-def]
        return table[place]

    with pytest.raises(TypeError, match="lookup refers to table, a list that may change"):
        fingerprint(lookup)


# --- processes -----------------------------------------------------------------------------------------------

# What was loaded cannot be written again, so that the last time nothing is loaded: whoever drops last then writes.
MANY_TIMES = """
import sys
from qvit.cpu import compiled
from qvit.quantum.engines import statevector_kernel
for last in (False, False, False, True):
    @compiled.jit
    def shared(number):
        return number + number + 1
    if last:
        shared._cache.load_overload = lambda *_: None
    assert shared(1.5) == 4.0
    if not last:
        shared._cache.flush()
print(compiled.fingerprint(statevector_kernel.backward.py_func))
"""


@pytest.mark.slow("two processes compile at once, each of which loads torch")
@pytest.mark.processes
def test_two_processes_at_once(folder: Path) -> None:
    """They load, write and drop the same file; and both find kernels under one name, whatever strings hash to."""
    from qvit.quantum.engines import statevector_kernel

    (folder / "many.py").write_text(MANY_TIMES)
    started = [
        subprocess.Popen(
            [sys.executable, folder / "many.py"],
            env=os.environ | {"NUMBA_CACHE_DIR": str(folder), "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    told = [process.communicate(timeout=600) for process in started]
    assert told == [(fingerprint(statevector_kernel.backward.py_func) + "\n", "")] * 2
    assert len([path for path in files(folder) if "shared" in path.name]) == 1


def test_the_kernels_are_kept_this_way() -> None:
    from qvit.models import attention_kernel, dense_kernel, embedding_kernel, features_kernel, norm_kernel
    from qvit.quantum.engines import heisenberg_kernel, statevector_kernel

    layers = attention_kernel, dense_kernel, embedding_kernel, norm_kernel
    modules = (statevector_kernel, heisenberg_kernel, *layers)
    entries = [getattr(module, name) for module in modules for name in ("forward", "backward")]
    entries.append(features_kernel.describe)
    assert all(isinstance(entry._cache, KeptOnDisk) for entry in entries)
