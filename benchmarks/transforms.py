"""What becomes of circuits and models in torch's compilers and transforms: the largest difference from plain calls.

    python benchmarks/transforms.py                       # minutes: most of it is a C++ compiler's
    python benchmarks/transforms.py export jit.trace      # these ways only

Each engine runs circuits that try its paths (angles with coefficients and constants, loaded amplitudes, groups of
weights) in double precision, at batches other than the one it was traced with; exported programs are saved and loaded
before they run. Compiled functions are compared in values and gradients, Jacobians and Hessians with those that torch
finds row by row. Prints a table in Markdown; what fails is named below it.
"""

import io
import itertools
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.autograd.functional import hessian, jacobian

from qvit.models import create_model
from qvit.quantum import QuantumLinear

BATCHES = (5, 2, 37)  # traced with the first
MODEL_BATCHES = (2, 3, 110)  # the last is enough for the narrow attention
CIRCUITS = {
    "heisenberg": (("ry_ring", ()), ("rx_ring", (3, 2)), ("reupload", (2,))),
    "statevector": (("ry_ring", ()), ("reupload", (3, 2)), ("amplitude_ring", (2,))),
    "unitary": (("ry_ring", ()), ("reupload", (3, 2)), ("amplitude_ring", (2,))),
    "subspace": (("pyramid", ()), ("butterfly", (3, 2))),
    "auto": (("ry_ring", ()), ("strongly_entangling", (3, 2)), ("pyramid", (2,))),
}
MODELS = ("qvit_4q2h", "vit_4q2h")
Case = tuple[nn.Module, list[Tensor]]


def circuits(engine: str) -> list[Case]:
    """Return layers of an engine, each with inputs of every batch size."""
    cases: list[Case] = []
    for ansatz, groups in CIRCUITS[engine]:
        layer = QuantumLinear(4, n_layers=2, ansatz=ansatz, groups=groups, engine=engine, dtype=torch.float64)
        shared = (1, *groups[1:])[: len(groups)]  # the first group shares its input with the others
        batches = [torch.randn(b, *shared, layer.n_inputs, dtype=torch.float64) for b in BATCHES]
        cases.append((layer, [batch.requires_grad_() for batch in batches]))
    return cases


def whole(name: str) -> list[Case]:
    """Return a model with images of every batch size."""
    model = create_model(name, img_size=12, in_chans=1).double().eval()
    batches = [torch.rand(b, 1, 12, 12, dtype=torch.float64) for b in MODEL_BATCHES]
    return [(model, [batch.requires_grad_() for batch in batches])]


def apart(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference, infinite for another shape or for what is no number."""
    if type(ours) is not Tensor or ours.shape != theirs.shape:
        return float("inf")
    difference = float((ours - theirs).detach().abs().max())
    return difference if difference == difference else float("inf")


def values(run: Callable[[Tensor], Tensor], module: nn.Module, batches: list[Tensor]) -> float:
    """Return how far the values are off."""
    return max(apart(run(x), module(x)) for x in batches)


def slopes(run: Callable[[Tensor], Tensor], module: nn.Module, batches: list[Tensor]) -> float:
    """Return how far the gradients of inputs and parameters are off."""
    worst = 0.0
    for x in batches:
        leaves = [x, *module.parameters()]
        ours, theirs = (torch.autograd.grad(f(x).sin().sum(), leaves) for f in (run, module))
        worst = max(worst, *itertools.starmap(apart, zip(ours, theirs, strict=True)))
    return worst


def exported(module: nn.Module, x: Tensor, *, strict: bool) -> torch.export.ExportedProgram:
    """Return the program for any batch."""
    shapes = ({0: torch.export.Dim("batch", min=1, max=100_000)},)
    return torch.export.export(module, (x.detach(),), dynamic_shapes=shapes, strict=strict)


def export(module: nn.Module, batches: list[Tensor], *, strict: bool) -> float:
    """Export, save, load, run."""
    file = io.BytesIO()
    torch.export.save(exported(module, batches[0], strict=strict), file)
    file.seek(0)
    run = torch.export.load(file).module()
    return values(run, module, [x.detach() for x in batches])


def compiled(module: nn.Module, batches: list[Tensor]) -> float:
    """Compile by inductor in one graph."""
    run = torch.compile(module, fullgraph=True)
    return max(values(run, module, batches), slopes(run, module, batches))


def ahead_of_time(module: nn.Module, batches: list[Tensor]) -> float:
    """Compile into a package, load that."""
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        program, place = exported(module, batches[0], strict=True), str(Path(folder) / "package.pt2")
        run = torch._inductor.aoti_load_package(torch._inductor.aoti_compile_and_package(program, package_path=place))
        return values(run, module, [x.detach() for x in batches])


def jit_traced(module: nn.Module, batches: list[Tensor]) -> float:
    """Trace, save, load, run."""
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(module, batches[0]), file)
    file.seek(0)
    run = torch.jit.load(file)
    return values(run, module, batches)


def vectorised(of: str) -> Callable[[nn.Module, list[Tensor]], float]:
    """Return a check of Jacobians (backward and forward) or Hessians with all rows at once."""

    def check(module: nn.Module, batches: list[Tensor]) -> float:
        x = min(batches, key=len).detach()
        if of == "hessian":
            x = x[:1]
            ours, theirs = (hessian(lambda y: module(y).sin().sum(), x, vectorize=all_) for all_ in (True, False))
            return apart(ours, theirs)
        rows = jacobian(module, x)
        return max(apart(jacobian(module, x, vectorize=True, strategy=f"{way}-mode"), rows) for way in WAYS_BACK)

    return check


WAYS_BACK = ("reverse", "forward")
WAYS: dict[str, Callable[[nn.Module, list[Tensor]], float]] = {
    "export": lambda module, batches: export(module, batches, strict=False),
    "export strict": lambda module, batches: export(module, batches, strict=True),
    "compile": compiled,
    "AOTInductor": ahead_of_time,
    "jit.trace": jit_traced,
    "jacobian": vectorised("jacobian"),
    "hessian": vectorised("hessian"),
}


def main(chosen: list[str]) -> int:
    """Print the table; return 1 if anything failed."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    ways = [name for name in WAYS if not chosen or name in chosen]
    rows: dict[str, list[Case]] = {
        **{engine: circuits(engine) for engine in CIRCUITS},
        **{name: whole(name) for name in MODELS},
    }
    print("| |", " | ".join(ways), "|\n|---|" + "---|" * len(ways))
    failed = []
    for row, cases in rows.items():
        print(f"| `{row}` |", end="", flush=True)
        for way in ways:
            try:
                worst = 0.0
                for case in cases:
                    torch._dynamo.reset()
                    worst = max(worst, WAYS[way](*case))
                if worst > 1e-6:
                    failed.append(f"{row}, {way}: off by {worst:.2g}")
                print(f" {worst:.0e} |", end="", flush=True)
            except Exception as error:
                failed.append(f"{row}, {way}: {type(error).__name__}: {str(error).strip()[:300]}")
                print(" fails |", end="", flush=True)
        print()
    print("", *failed, sep="\n")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
