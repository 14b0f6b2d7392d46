"""What `import qvit` offers: eleven names, each loaded when it is first used."""

import subprocess
import sys
from importlib import import_module

import pytest

import qvit


def test_each_name_is_that_of_its_home() -> None:
    assert len(qvit.__all__) == 11
    assert set(qvit.__all__) == set(qvit._HOMES)
    for name, home in qvit._HOMES.items():
        assert getattr(qvit, name) is getattr(import_module(f"qvit.{home}"), name)
        assert name in dir(qvit)
        assert home.partition(".")[0] != name, "a package of this name would take its place"


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError) as caught:
        _ = qvit.train  # type: ignore[attr-defined]
    assert str(caught.value) == "module 'qvit' has no attribute 'train'"


@pytest.mark.processes
def test_importing_brings_nothing_else() -> None:
    code = "import sys; before = set(sys.modules); import qvit; print(*sorted(set(sys.modules) - before))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {name.partition(".")[0] for name in told} - set(sys.stdlib_module_names) == {"qvit"}
