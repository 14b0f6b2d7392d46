"""Kernels at every width of vectors: run where this processor has it, and the machine code looked at for all."""

import functools
import json
import os
import platform
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numba
import pytest
from numba import types

from qvit.cpu import compiled
from qvit.models import attention_kernel
from qvit.quantum.engines import heisenberg_kernel, statevector_kernel


@dataclass(frozen=True)
class Width:
    """A processor that has it, by LLVM's name; what it has beyond the width before; how its code looks."""

    triple: str
    processor: str
    needs: tuple[str, ...]
    register: str  # the widest
    arithmetic: str  # products of whole registers, fused with sums where that can be


_X86, _ARM = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"
_V3 = ("avx2", "fma", "bmi", "bmi2", "lzcnt", "f16c", "movbe")
_V4 = (*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
WIDTHS = {
    "SSE": Width(_X86, "x86-64", ("sse2",), "xmm", r"mulp[sd]\s.*%xmm"),
    "AVX2": Width(_X86, "x86-64-v3", _V3, "ymm", r"vfn?madd\d+p[sd]\s.*%ymm"),
    "AVX-512": Width(_X86, "x86-64-v4", _V4, "zmm", r"vfn?madd\d+p[sd]\s.*%zmm"),
    "NEON": Width(_ARM, "cortex-a72", ("neon",), "q", r"fml[as]\s+v\d+\.(4s|2d)"),
}
RUN = [name for name in WIDTHS if name != "NEON"]


def here() -> list[str]:
    """Return the widths that this processor has, the widest last."""
    features = llvm.get_host_cpu_features()
    intel = platform.machine() in ("x86_64", "AMD64")
    return [name for name in RUN if intel and all(features.get(needed) for needed in WIDTHS[name].needs)]


# One kind of numbers where all has to be compiled for this test alone; both kinds are there at two widths or more.
NUMBERS = {"SSE": ["float32"], "AVX2": ["float64"], "AVX-512": ["float32", "float64"]}
MOST = {"float32": 1e-6, "float64": 1e-12}


@pytest.mark.slow("a process in which every kernel is compiled anew")
@pytest.mark.processes
@pytest.mark.parametrize("name", RUN)
def test_run_at_every_width(name: str) -> None:
    """Values and gradients as the reference's; compiled code is kept beside that of the other widths."""
    width, has = WIDTHS[name], here()
    if name not in has:
        pytest.skip(f"this processor has no {name}: its code is looked at below, but not run")
    # Without the features Numba would keep this processor's own, whatever the name. The widest of all is the
    # processor's under its own name, too, and then compiled for the other tests.
    own = name == has[-1] and "NUMBA_CPU_NAME" not in os.environ
    as_if = {} if own else {"NUMBA_CPU_NAME": width.processor, "NUMBA_CPU_FEATURES": ""}
    script = Path(__file__).with_name("at_width.py")
    numbers = sorted(MOST) if own else NUMBERS[name]
    command = [sys.executable, script, *numbers]
    done = subprocess.run(command, env=os.environ | as_if, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert own or told["processor"] == width.processor
    assert list(told["errors"]) == numbers
    assert all(error <= MOST[kind] for kind, error in told["errors"].items()), told["errors"]
    assert max(told["registers"], key=told["registers"].get) == width.register
    assert set(told["registers"]) <= set(widths_up_to(width.register))


def widths_up_to(register: str) -> list[str]:
    return ["xmm", "ymm", "zmm"][: 1 + ["xmm", "ymm", "zmm"].index(register)]


def _arrays(number: Any) -> list[Any]:
    return [types.Array(number, dimensions, "C") for dimensions in (1, 2, 3, 4)]


def _signatures() -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """Return kernels that between them do all there is, and what they are called with."""
    whole, code = types.int64, types.Array(types.int32, 1, "C")
    index = types.Array(whole, 1, "C")
    single, double = _arrays(types.float32), _arrays(types.float64)
    a, b, c, d = double
    nodes = (code, c, b, b, index, index, *(a,) * 6, c, c, d, whole, whole, whole)
    a, b, c, d = single
    states = (code, c, b, b, c, index, index, a, b, c, c, d, c, whole, whole, whole)
    number = types.float32
    heads = (c, c, c, types.UniTuple(a, 7), c, c, b, b, c, c, c, number, number, whole, whole)
    return {
        "heisenberg": (heisenberg_kernel.backward, nodes),
        "statevector": (statevector_kernel.backward, states),
        "attention": (attention_kernel.backward, heads),
    }


@functools.cache
def written(name: str) -> str:
    """What Numba hands to LLVM's code generator for a kernel."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    entry, signature = _signatures()[name]
    fresh = numba.njit(**compiled._OPTIONS)(entry.py_func)  # what comes from a file cannot be looked at
    fresh.compile(signature)
    return fresh.inspect_llvm(fresh.signatures[0])


def assembly(code: str, width: Width) -> str:
    code = re.sub(r"target datalayout = .*\n", "", code)
    code = re.sub(r"target triple = .*\n", f'target triple = "{width.triple}"\n', code)
    machine = llvm.Target.from_triple(width.triple).create_target_machine(cpu=width.processor, opt=3)
    return machine.emit_assembly(llvm.parse_assembly(code))


LARGE = pytest.mark.slow("a large kernel is compiled, and then for every width")


@pytest.mark.long
@pytest.mark.parametrize(
    "which", [pytest.param(name, marks=() if name == "heisenberg" else LARGE) for name in _signatures()]
)
def test_machine_code_of_every_width(which: str) -> None:
    """Whole registers of the widest kind do the arithmetic, on processors that this one is not, too."""
    code = written(which)
    assert not re.search(r"llvm\.(x86|aarch64)\.", code), "nothing of one kind of processor"
    for name, width in WIDTHS.items():
        text = assembly(code, width)
        used = Counter(re.findall(r"%([xyz]mm)\d" if name != "NEON" else r"\b(q|v)\d+\b", text))
        if name == "NEON":
            # Cosines of single numbers are for angles that no reduction holds, beyond 1e8.
            assert not re.search(r"\sbl\s+(rint|fma|exp|round)", text), "no lane on its own"
        else:
            assert max(used, key=used.__getitem__) == width.register, (name, used)
            assert set(used) <= set(widths_up_to(width.register)), (name, used)
        assert len(re.findall(width.arithmetic, text)) >= 25, name
