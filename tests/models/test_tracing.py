"""Whole models compiled, exported and traced: the same numbers at every batch size, or an error.

They run in a process of their own, without the checks of annotations: symbolic sizes are no `int`. The graph is run as
it was traced ("eager"): what a backend makes of it is torch's.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from qvit.models.attention import attend
from qvit.models.norm import LayerNorm

WAYS = ["compiled", "exported", "exported strictly", "traced", "traced with a class token"]
SCRIPT = """
import io, json, warnings
import torch
from qvit.models import attention, create_model
torch.set_num_threads(1)
warnings.simplefilter("ignore")
BATCHES = (1, 5, 6)  # 5 is what is traced
attention.FEWEST_SCORES = 4 * 2 * 4 * 4  # from 4 images on attention has its own kernel
results = {}

def attempt(name, check):
    torch._dynamo.reset()
    try:
        check()
        results[name] = ""
    except Exception as error:
        results[name] = f"{type(error).__name__}: {error}"[:800]

def batch(count):
    return torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8)

def compare(run, model):
    for count in BATCHES:
        images = batch(count)
        torch.testing.assert_close(run(images), model(images), rtol=1e-5, atol=1e-6)

def compiled(model):
    run = torch.compile(model, backend="eager", fullgraph=True, dynamic=True)
    run(batch(5))
    compare(run, model)
    slopes = [torch.autograd.grad(f(batch(5) * 0 + 9).square().sum(), list(model.parameters())) for f in (run, model)]
    for ours, theirs in zip(*slopes):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)

def exported(model, strict):
    shapes = ({0: torch.export.Dim("count", min=1, max=100_000)},)
    file = io.BytesIO()
    torch.export.save(torch.export.export(model, (batch(5),), dynamic_shapes=shapes, strict=strict), file)
    file.seek(0)
    compare(torch.export.load(file).module(), model)

def traced(model):
    compare(torch.jit.trace(model, batch(5)), model)

# Circuits, attention of narrow heads and norms are ours; what another projection has besides is torch's.
sizes = {"num_classes": 3, "in_chans": 1, "img_size": 8}
model = create_model("qvit_2q2h", **sizes)
attempt("compiled", lambda: compiled(model))
attempt("exported", lambda: exported(model, False))
attempt("exported strictly", lambda: exported(model, True))
attempt("traced", lambda: traced(model))
other = create_model("qvit_2q2h", pool="cls", **sizes)
attempt("traced with a class token", lambda: traced(other))
print(json.dumps(results))
"""


@pytest.mark.processes
@pytest.mark.slow("torch's compilers and exporters take seconds a model")
def test_the_same_at_every_batch_size(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        # Inductor's own may hold code for another kind of processor, or of another version of ours.
        env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == dict.fromkeys(WAYS, "")


def test_a_compiler_sees_operations_of_torchs_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither kernels nor hooks, and no question that it cannot trace."""
    operands = [torch.randn(8, 2, 49, 4, requires_grad=True) for _ in range(3)]
    norm, plain = LayerNorm(4), torch.nn.LayerNorm(4)
    assert "NarrowAttention" in type(attend(*operands).grad_fn.next_functions[0][0]).__name__
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    found = attend(*operands)
    assert "ScaledDotProduct" in type(found.grad_fn).__name__ or "Matmul" in type(found.grad_fn).__name__
    torch.testing.assert_close(found, torch.nn.functional.scaled_dot_product_attention(*operands))
    for values, wanted in ((found, found), (norm(operands[0]), plain(operands[0]))):
        first, second = (
            torch.autograd.grad(each.sin().sum(), operands[0], retain_graph=True)[0] for each in (values, wanted)
        )
        assert torch.equal(first, second)
