"""What figures were computed on."""

import os
import platform
from pathlib import Path

import pytest
import torch

from qvit.training.environment import environment


def test_machine_and_versions_are_told() -> None:
    told = environment()
    assert told["python"] == platform.python_version()
    assert told["platform"] == platform.platform()
    assert told["cpus"] == os.cpu_count()
    assert (told["gpu"] is None) is not torch.cuda.is_initialized()
    assert told["packages"]["torch"] == torch.__version__


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="Linux tells it there")
def test_the_processor_is_the_one_that_linux_names() -> None:
    processor = environment()["processor"]
    assert processor
    named = "model name" in Path("/proc/cpuinfo").read_text()
    assert not named or processor in Path("/proc/cpuinfo").read_text()


def test_a_system_that_does_not_name_its_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise PermissionError

    monkeypatch.setattr(Path, "read_text", refuse)
    assert environment()["processor"] == (platform.processor() or platform.machine())
