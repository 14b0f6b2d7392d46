"""The short part of the fuzzers: what once broke something, and some fresh inputs of each kind.

Kinds whose inputs are values, or which change the process that they run in, have one of their own, without beartype in
between; the others are tried here. `make fuzz` tries thousands.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.__main__ import KINDS, kind_of
from fuzz.harness import CORPUS, prepared

APART = ["circuits", "commands"]
TRAINING = ["run_folders"]
TEXTS = ["npz", "options", "pictures", "studies", "tables", "yaml_texts"]
VALID, FRESH = 4, 15


def test_every_kind_is_tried_and_has_a_corpus() -> None:
    assert sorted(APART + TRAINING + TEXTS) == KINDS
    assert sorted(path.name for path in CORPUS.iterdir()) == KINDS


@pytest.mark.parametrize("kind", [*TEXTS, *(pytest.param(kind, marks=pytest.mark.trains) for kind in TRAINING)])
def test_nothing_but_success_or_a_refusal_in_one_line(kind: str, tmp_path: Path) -> None:
    with prepared(kind_of(kind), valid=VALID) as scene:
        known, found = scene.replay(), scene.fuzz(FRESH, keep=tmp_path)

    assert known.defects + found.defects == []
    assert (known.tried, found.tried) == (len(list((CORPUS / kind).iterdir())), FRESH)
    assert known.refused > 0.8 * known.tried, "the corpus has to be reached by what refuses it"
    assert found.refused > 0.2 * FRESH


@pytest.mark.slow("circuits and commands go to a process that imports torch")
@pytest.mark.processes
@pytest.mark.trains
def test_nothing_but_success_or_a_refusal_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "fuzz", "--here", *APART),
            *("--inputs", str(2 * FRESH), "--valid", str(VALID), "--keep", str(tmp_path)),
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    for kind, corpus, fresh in zip(APART, lines[::2], lines[1::2], strict=True):
        assert corpus.startswith(f"corpus of {kind}: {len(list((CORPUS / kind).iterdir()))} inputs, ")
        assert fresh.startswith(f"{kind}: {2 * FRESH} inputs, ")
        assert ", 0 defects, " in corpus
        assert ", 0 defects, " in fresh
