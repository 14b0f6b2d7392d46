"""Run every kernel in a process of its own, for the processor that `NUMBA_CPU_NAME` names; print what came of it.

The arguments are the kinds of numbers.
Values and gradients against the reference engine, attention and layers against plain torch, and which registers are
used.
"""

import json
import math
import re
import sys
from collections import Counter

import numba
import torch
from numba.core.registry import cpu_target
from torch import Tensor

from qvit.cpu import compiled
from qvit.models.attention import NarrowAttention
from qvit.models.dense import project
from qvit.models.embedding import embed
from qvit.models.features import patch_features
from qvit.models.norm import layer_norm, norm_mean
from qvit.quantum import Circuit, expectations, get_ansatz
from qvit.quantum.engines import heisenberg_kernel

CIRCUITS = [
    ("heisenberg", "ry_ring", 3),
    ("heisenberg", "reupload", 2),
    ("statevector", "reupload", 3),
    ("statevector", "strongly_entangling", 4),
    ("statevector", "amplitude_ring", 2),
]


def error(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max().clamp(min=1.0)).item()


def circuit_errors(engine: str, circuit: Circuit, dtype: torch.dtype) -> list[float]:
    x, w = torch.randn(19, 1, circuit.n_inputs, dtype=dtype), torch.randn(2, circuit.n_weights, dtype=dtype)
    results = []
    for name, kind in ((engine, dtype), ("reference", torch.float64)):
        leaves = [tensor.to(kind).requires_grad_() for tensor in (x, w)]
        values = expectations(circuit, *leaves, engine=name)
        factors = torch.linspace(0.3, 1.7, values.numel(), dtype=kind).reshape(values.shape)
        results.append([values, *torch.autograd.grad(values, leaves, factors)])
    return [error(a, b) for a, b in zip(*results, strict=True)]


def attention_errors(dtype: torch.dtype) -> list[float]:
    given = [torch.randn(2, 3, width, 37, dtype=dtype) for width in (5, 5, 7)]
    results = []
    for kind in (dtype, torch.float64):
        q, k, v = (tensor.to(kind).requires_grad_() for tensor in given)
        if kind is dtype and not results:
            out = NarrowAttention.apply(q, k, v)
        else:
            out = v @ (q.mT @ k / math.sqrt(q.shape[2])).softmax(-1).mT
        factors = torch.linspace(-1.0, 1.7, out.numel(), dtype=kind).reshape(out.shape)
        results.append([out, *torch.autograd.grad(out, (q, k, v), factors)])
    return [error(a, b) for a, b in zip(*results, strict=True)]


def layer_errors() -> list[float]:
    """Errors of the layers whose kernels take float32 alone: embedding, norm and its mean, a dense layer."""
    images = torch.randint(0, 256, (2, 3, 2, 28, 28), dtype=torch.uint8)
    shapes = (2, 5, 2, 4, 4), (2, 5), (2, 1, 49, 5), (2, 5), (2, 5), (2, 7, 5), (2, 7)
    given = [*(0.5 + torch.rand(2, 2, 2)), *map(torch.randn, shapes)]
    results = []
    for kind in (torch.float32, torch.float64):
        mean, std, *leaves = (tensor.to(kind) for tensor in given)
        weight, bias, positions, scale, shift, matrix, constant = (leaf.requires_grad_() for leaf in leaves)
        tokens = embed(images, mean, std, weight, bias, positions, 4)
        normal = layer_norm(tokens, scale, shift, 1e-5)
        if kind is torch.float32:
            dense = project(normal, matrix, constant)
        else:
            dense = normal @ matrix.mT[:, None] + constant[:, None, None]
        out = normal, norm_mean(tokens, scale, shift, 1e-5), dense
        factors = [torch.linspace(-1.0, 1.7, one.numel(), dtype=kind).reshape(one.shape) for one in out]
        results.append([tokens, *out, *torch.autograd.grad(out, leaves, factors)])
    return [error(a, b) for a, b in zip(*results, strict=True)]


def feature_errors() -> list[float]:
    images = torch.randint(0, 256, (3, 2, 20, 20), dtype=torch.uint8)
    return [
        error(patch_features(images, kind, 5), patch_features((images / 255).requires_grad_(), kind, 5).detach())
        for kind in ("dct", "contrast")
    ]


def registers() -> Counter[str]:
    """Return how often the widths occur in a kernel compiled here and now, as code from a file cannot be read."""
    fresh = numba.njit(**compiled._OPTIONS)(heisenberg_kernel.backward.py_func)
    fresh.compile(heisenberg_kernel.backward.signatures[0])
    return Counter(re.findall(r"%([xyz]mm)\d", fresh.inspect_asm(fresh.signatures[0])))


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    errors = {}
    for name in sys.argv[1:]:
        dtype = getattr(torch, name)
        found = attention_errors(dtype)
        for engine, ansatz, n in CIRCUITS:
            found += circuit_errors(engine, get_ansatz(ansatz).build(n, 2), dtype)
        if dtype is torch.float32:
            found += layer_errors() + feature_errors()
        errors[name] = max(found)
    _, name, _ = cpu_target.target_context.codegen().magic_tuple()
    json.dump({"processor": name, "errors": errors, "registers": registers()}, sys.stdout)


if __name__ == "__main__":
    main()
