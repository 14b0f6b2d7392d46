"""Test processes that run at once compile each kernel once: one compiles, the others wait and read what it kept."""

import fcntl
import os
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def _compiled_once(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[None]:
    if not hasattr(request.config, "workerinput"):
        yield
        return
    dispatcher: Any = import_module("numba.core.dispatcher").Dispatcher
    one_at_a_time: Any = import_module("numba.core.compiler_lock").global_compiler_lock
    kept: Any = import_module("qvit.cpu.compiled").KeptOnDisk
    locks = tmp_path_factory.getbasetemp().parent  # that of the whole run
    original = dispatcher.compile

    def compile_or_wait(self: Any, signature: Any) -> Any:
        if not isinstance(self._cache, kept):
            return original(self, signature)
        # The lock between threads first: who holds it may need any kernel that the one compiled calls.
        with one_at_a_time:
            lock = os.open(locks / f"{self.__name__}.lock", os.O_CREAT | os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                return original(self, signature)
            finally:
                os.close(lock)

    dispatcher.compile = compile_or_wait
    yield
    dispatcher.compile = original
