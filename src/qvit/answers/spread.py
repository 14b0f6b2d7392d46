"""Work on many files, by this process and others beside it, the results in order and few of them in memory."""

import gc
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from qvit.errors import RunError

T = TypeVar("T", covariant=True)
File = tuple[str, str | None]  # its path, and what is known to be wrong with it
Part = tuple[int, list[File]]  # the position of the first file, and files in a row
Work = Callable[[int, list[File]], T]
LISTS = (".txt", ".lst")
ALONE = 48 << 20  # of files that one process has read by the time that others have started
_FILE = 3000  # bytes that opening a file takes as long as
_PER_BYTE = 75  # bytes that are read for each of a list: a line of forty names a file
_PER_WORKER = 2  # parts that wait for each process, so that none waits for a part
_WAITING = 32  # results that wait for an earlier one while other processes start, which takes seconds


class _Result(Protocol[T]):
    def done(self) -> bool: ...

    def result(self) -> T: ...


@dataclass(frozen=True)
class _Done(Generic[T]):
    value: T

    def done(self) -> bool:
        return True

    def result(self) -> T:
        return self.value


def in_order(parts: Iterator[Part], here: Work[T], there: Work[T] | None) -> Iterator[T]:
    """Yield the results of all parts; `there` is done by other processes, one for each processor but this one's.

    This process works, too, while the next result is not ready. Without `there` it does everything. Raises RunError if
    one of the others is ended from outside.
    """
    workers = 0 if there is None else _processors() - 1
    if there is None or not workers:
        yield from (here(*part) for part in parts)
        return
    pool = _pool(workers)
    ahead: deque[_Result[T]] = deque()
    try:
        while True:
            while sum(not each.done() for each in ahead) < _PER_WORKER * workers and len(ahead) < _room(workers):
                part = next(parts, None)
                if part is None:
                    break
                ahead.append(pool.submit(there, *part))
            if not ahead:
                return
            if not ahead[0].done() and len(ahead) < _room(workers):
                part = next(parts, None)
                if part is not None:
                    ahead.append(_Done(here(*part)))
                    continue
            yield ahead.popleft().result()
    except BrokenProcessPool as error:
        raise RunError("A process that reads pictures was ended, perhaps for want of memory. Run it again.") from error
    finally:
        for each in ahead:
            getattr(each, "cancel", bool)()


def weight(path: str) -> int:
    """Return how many bytes are read in the time that a file takes."""
    try:
        return _FILE + os.stat(path).st_size  # noqa: PTH116 - Path.stat raises for some names
    except (OSError, ValueError):
        return _FILE


def start_if_many(words: Iterable[str]) -> None:
    """Let other processes import what they need while this one does, if so many files are named that they will help.

    For commands, before they import anything that takes long. It only looks, and does not mind what it cannot read.
    """
    left = ALONE
    for word in words:
        if os.path.isdir(word):  # noqa: PTH112 - likewise
            for folder, _, names in os.walk(word):
                for name in names:
                    left -= weight(os.path.join(folder, name))  # noqa: PTH118 - of thousands
                    if left < 0:
                        break
                if left < 0:
                    break
        else:
            left -= weight(word) * (_PER_BYTE if word.lower().endswith(LISTS) else 1)
        if left < 0:
            workers = _processors() - 1
            if workers:
                pool = _pool(workers)
                for _ in range(workers):
                    pool.submit(_imported)
            return


def _imported() -> None:
    import qvit.answers.members  # noqa: F401


def _pool(workers: int) -> Any:
    from joblib.externals.loky import get_reusable_executor

    # Without the garbage collector, which `members` starts again: nothing that is imported becomes garbage.
    return get_reusable_executor(max_workers=workers, timeout=30, initializer=gc.disable)


def _room(workers: int) -> int:
    return _PER_WORKER * workers + _WAITING


def _processors() -> int:
    from joblib import cpu_count

    return int(cpu_count())
