"""A team of threads: torch's exchanges between processes, between threads of this one that wait for each other."""

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from qvit.training.distributed import Team

LIMIT = 60  # seconds after which a thread that waits for others gives up


class Room:
    """What `torch.distributed` is to processes; what one that has ended leaves the others in is an error."""

    def __init__(self, patch: pytest.MonkeyPatch, count: int) -> None:
        self.count, self.mine, self.told = count, threading.local(), threading.Condition()
        self.rounds: list[dict[int, Any]] = []
        self.ended: set[int] = set()
        for name in ("all_reduce", "broadcast_object_list", "all_gather_object", "get_rank", "get_world_size"):
            patch.setattr(torch.distributed, name, getattr(self, name))
        patch.setattr(torch.distributed, "is_initialized", lambda: hasattr(self.mine, "rank"))

    def get_rank(self) -> int:
        return self.mine.rank

    def get_world_size(self) -> int:
        return self.count

    def exchange(self, value: Any) -> list[Any]:
        """Return what all threads bring to this exchange; like gloo, an error where one of them has ended before it."""
        self.mine.exchanges += 1
        with self.told:
            if len(self.rounds) < self.mine.exchanges:
                self.rounds.append({})
            brought = self.rounds[self.mine.exchanges - 1]
            brought[self.mine.rank] = copy.deepcopy(value)
            self.told.notify_all()
            self.told.wait_for(lambda: len(brought) == self.count or self.ended - brought.keys(), timeout=LIMIT)
            if len(brought) < self.count:
                raise RuntimeError("Connection closed by peer")
            return copy.deepcopy([brought[rank] for rank in range(self.count)])

    def all_reduce(self, values: Tensor) -> None:
        values.copy_(torch.stack(self.exchange(values)).sum(0))

    def broadcast_object_list(self, values: list[Any], src: int) -> None:
        values[:] = self.exchange(values)[src]

    def all_gather_object(self, values: list[Any], value: Any) -> None:
        values[:] = self.exchange(value)

    def together(self, work: Callable[[Team], Any]) -> list[Any]:
        """Have each thread do some work; returns what they return or raise, in order."""
        results: list[Any] = [None] * self.count
        self.rounds, self.ended = [], set()

        def run(rank: int) -> None:
            self.mine.rank, self.mine.exchanges = rank, 0
            try:
                results[rank] = work(Team(rank, self.count, rank))
            except BaseException as error:
                results[rank] = error
            with self.told:
                self.ended.add(rank)
                self.told.notify_all()

        threads = [threading.Thread(target=run, args=(rank,)) for rank in range(self.count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results
