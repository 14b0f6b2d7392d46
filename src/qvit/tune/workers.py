"""Who trains batches: worker processes, as of a study, or this process itself."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qvit.study.pool import Does, Event, LocalPool, Pool, attempt

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from qvit.data.arrays import Dataset
    from qvit.tune.trials import Batch


def begin() -> Does:
    """Return what does the work of a process: it trains batches, and tells how far they are."""
    from qvit.tune.work import Trainer  # heavy: a worker takes its lock before it loads this

    trainer = Trainer()

    def does(batch: "Batch", connection: "Connection") -> list[tuple[str, str, Any]]:
        def tell(epoch: int, epochs: int) -> None:
            with suppress(OSError):  # the driver is gone, and so is this process soon
                connection.send(("epoch", batch.identity, (epoch, epochs)))

        kind, told = attempt(trainer.train, batch, tell)
        return [(kind, batch.identity, told)]

    return does


class Here:
    """A pool without workers: this process trains each batch when it is submitted."""

    stacks = True

    def __init__(self, data: "Dataset") -> None:
        from qvit.tune.work import Trainer

        self._trainer = Trainer(data)
        self._events: list[Event] = []

    @property
    def idle(self) -> int:
        """One, unless a batch was trained and nobody has asked for it yet."""
        return 0 if self._events else 1

    def submit(self, work: Any) -> str:
        """Train a batch."""
        kind, told = attempt(self._trainer.train, work)
        self._events.append(Event(kind, work.identity, "this process", told))
        return "this process"

    def events(self, _timeout: float) -> list[Event]:
        """Return what has become of the last batch."""
        found, self._events = self._events, []
        return found

    def close(self) -> None:
        """Do nothing: nothing was started."""


def pool_of(workers: int, folder: Path, data: "Dataset", *, threads: int) -> Pool:
    """Return so many worker processes; of one, this process itself."""
    return Here(data) if workers == 1 else LocalPool(workers, folder, threads=threads, begin=begin)
