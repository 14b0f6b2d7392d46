"""`python -m fuzz [KIND …] [--inputs N] [--seed S] [--keep FOLDER]`: fuzz in processes of their own, one a kind."""

import argparse
import importlib
import subprocess
import sys
from pathlib import Path

from fuzz.harness import VALID, Kind, prepared

SHARED = ("__main__", "harness", "test_fuzz", "test_harness")
# The modules of this folder that define a `KIND`.
KINDS = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in SHARED)


def kind_of(name: str) -> Kind:
    """Return the kind that a module of this folder defines."""
    return importlib.import_module(f"fuzz.{name}").KIND


def main() -> int:
    """Fuzz each kind; the exit code is 1 if anything broke."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("kinds", nargs="*", help=f"of {', '.join(KINDS)}")
    parser.add_argument("--inputs", type=int, help="how many; each kind has its own number otherwise")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--valid", type=int, default=VALID, help="how many valid inputs the others are measured by")
    parser.add_argument("--keep", type=Path, default=Path("runs/fuzz"), help="where inputs that broke something go")
    parser.add_argument("--here", action="store_true", help="in this process, to debug")
    asked = parser.parse_args()
    if not asked.here:
        common = [sys.executable, "-m", "fuzz", "--here", *sys.argv[1:]]
        rest = [argument for argument in common if argument not in asked.kinds]
        return max(subprocess.run([*rest, name], check=False).returncode != 0 for name in asked.kinds or KINDS)
    failed = 0
    for name in asked.kinds or KINDS:
        kind = kind_of(name)
        inputs = kind.inputs if asked.inputs is None else asked.inputs
        with prepared(kind, seed=asked.seed, valid=asked.valid) as scene:
            known = scene.replay()
            found = scene.fuzz(inputs, seed=asked.seed, first=asked.first, keep=asked.keep)
        defects = known.defects + found.defects
        print(*defects[:50], f"corpus of {known.line()}", found.line(), sep="\n", flush=True)
        failed = failed or int(bool(defects))
    return failed


if __name__ == "__main__":
    sys.exit(main())
