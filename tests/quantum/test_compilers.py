"""torch.compile, torch.export, torch.jit.trace: one graph, no noise, the same numbers at any batch size.

They run in a process of their own, without the checks of annotations: symbolic sizes are no `int`.
"""

import json
import os
import subprocess
import sys

import pytest

ENGINES = ["auto", "heisenberg", "statevector", "unitary", "subspace"]
SCRIPT = """
import io, json, sys, tempfile, traceback, warnings
import torch
from qvit.quantum import QuantumLinear
torch.set_num_threads(1)
close = torch.testing.assert_close
results = {}

def attempt(name, check):
    torch._dynamo.reset()
    torch._dynamo.utils.warn_once_cache.clear()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            check()
        results[name] = ""
        ours = {str(one.message)[:300] for one in caught if "qvit" in str(one.message)}
        results[f"noise of {name}"] = "; ".join(ours)
    except Exception as error:
        results[name] = f"{type(error).__name__}: {error}"[:800]

def same(run, layer, tokens):
    x = torch.randn(tokens, 2, layer.n_inputs, requires_grad=True)
    ours, theirs = run(x), layer(x)
    close(ours, theirs)
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    slopes = [torch.autograd.grad(values.square().sum(), (x, layer.weights)) for values in (ours, theirs)]
    for a, b in zip(*slopes):
        close(a, b)

def compiled(layer, backend, **options):
    run = torch.compile(layer, backend=backend, fullgraph=True, **options)
    for tokens in (5, 16, 21):
        same(run, layer, tokens)

def agrees(run, layer):
    for tokens in (2, 5, 16, 131):
        x = torch.randn(tokens, 2, layer.n_inputs)
        close(run(x), layer(x))

def exported(layer, strict):
    x = torch.randn(5, 2, layer.n_inputs)
    shapes = ({0: torch.export.Dim("batch", min=1, max=100_000)},)
    program = torch.export.export(layer, (x,), dynamic_shapes=shapes, strict=strict)
    agrees(program.module(), layer)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    agrees(torch.export.load(file).module(), layer)

def traced(layer):
    run = torch.jit.trace(layer, torch.randn(5, 2, layer.n_inputs))
    same(run, layer, 7)
    file = io.BytesIO()
    torch.jit.save(run, file)
    file.seek(0)
    agrees(torch.jit.load(file), layer)

for place, engine in enumerate(json.loads(sys.argv[1])):
    ansatz = "pyramid" if engine == "subspace" else "ry_ring"
    depth = 2 + place  # a circuit of its own: nothing is prepared by an earlier call
    layer = QuantumLinear(3, n_layers=depth, ansatz=ansatz, groups=(2,), engine=engine)
    if engine == "auto":
        attempt("auto eager", lambda: compiled(layer, "eager"))
    attempt(f"{engine} aot_eager", lambda: compiled(layer, "aot_eager"))
    attempt(f"{engine} dynamic", lambda: compiled(layer, "aot_eager", dynamic=True))
    attempt(f"{engine} export", lambda: exported(layer, False))
    attempt(f"{engine} strict export", lambda: exported(layer, True))
    attempt(f"{engine} jit", lambda: traced(layer))

# Inductor has a mind of its own: an `index_add` on an expanded tensor that aot_eager gets right added to all tokens.
layer = QuantumLinear(2, n_layers=2, ansatz="reupload", engine="unitary").requires_grad_(False)
attempt("unitary inductor", lambda: agrees(torch.compile(layer, fullgraph=True, dynamic=True), layer))

def ahead_of_time(layer):
    shapes = ({0: torch.export.Dim("batch", min=1, max=100_000)},)
    program = torch.export.export(layer, (torch.randn(5, 2, layer.n_inputs),), dynamic_shapes=shapes)
    with tempfile.TemporaryDirectory() as folder:
        package = torch._inductor.aoti_compile_and_package(program, package_path=f"{folder}/layer.pt2")
        agrees(torch._inductor.aoti_load_package(package), layer)

attempt("unitary ahead of time", lambda: ahead_of_time(layer))

# And what a chain of indexed additions adds into place is read too early: gradients of four rotations by weights.
layer = QuantumLinear(4, n_layers=2, ansatz="ry_ring", engine="unitary")
attempt("unitary inductor's gradients", lambda: same(torch.compile(layer, fullgraph=True), layer, 5))
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The complaint of each attempt, empty if there is none."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(ENGINES)],
        # Inductor's own may hold code for another kind of processor, or of another version of ours.
        env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path_factory.mktemp("inductor"))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("engine", "way"),
    [
        ("auto", "eager"),
        ("unitary", "inductor"),
        ("unitary", "inductor's gradients"),
        ("unitary", "ahead of time"),
        *((engine, way) for engine in ENGINES for way in ("aot_eager", "dynamic", "export", "strict export", "jit")),
    ],
)
def test_traced_in_one_graph(engine: str, way: str, results: dict[str, str]) -> None:
    assert results[f"{engine} {way}"] == ""


@pytest.mark.parametrize("engine", ENGINES)
def test_traced_without_warnings(engine: str, results: dict[str, str]) -> None:
    noise = {name: text for name, text in results.items() if name.startswith(f"noise of {engine}")}
    assert noise
    assert not any(noise.values()), noise
