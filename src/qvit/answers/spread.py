"""Work on many files, by this process and others beside it, the results in order and few of them in memory."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from qvit.errors import RunError

T = TypeVar("T", covariant=True)
File = tuple[Path, str | None]  # and what is known to be wrong with it
Part = tuple[int, list[File]]  # the position of the first file, and files in a row
Work = Callable[[int, list[File]], T]
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
    from joblib.externals.loky import get_reusable_executor

    pool = get_reusable_executor(max_workers=workers, timeout=10)
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


def _room(workers: int) -> int:
    return _PER_WORKER * workers + _WAITING


def _processors() -> int:
    from joblib import cpu_count

    return int(cpu_count())
