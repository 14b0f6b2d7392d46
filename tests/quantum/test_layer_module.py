"""QuantumLinear as a module like any other: copies, files, functional calls, transforms, compilers, processes."""

import copy
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, vmap
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode

from qvit.quantum import ENGINES, QuantumLinear, get_ansatz

MADE = [engine for engine in ENGINES if engine not in ("subspace", "reference")]  # of a ring, for use


@pytest.fixture(params=MADE)
def layer(request: pytest.FixtureRequest) -> QuantumLinear:
    return QuantumLinear(3, n_layers=2, groups=(2,), engine=request.param)


@pytest.fixture
def inputs() -> Tensor:
    return torch.randn(5, 2, 3)


# --- copies and files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("assign", [False, True])
def test_state_dict_roundtrip(layer: QuantumLinear, inputs: Tensor, assign: bool, tmp_path: Path) -> None:
    save_file(layer.state_dict(), tmp_path / "layer.safetensors")
    for state in (layer.state_dict(), load_file(tmp_path / "layer.safetensors")):
        assert list(state) == ["weights"]
        other = QuantumLinear(3, n_layers=2, groups=(2,), engine=layer.engine)
        assert not torch.equal(other(inputs), layer(inputs))
        other.load_state_dict(state, assign=assign)
        assert torch.equal(other(inputs), layer(inputs))


def test_assigned_weights_reach_a_layer_made_on_meta(inputs: Tensor) -> None:
    layer = QuantumLinear(3, groups=(2,))
    with torch.device("meta"):
        other = QuantumLinear(3, groups=(2,))
    other.load_state_dict(layer.state_dict(), assign=True)
    assert torch.equal(other(inputs), layer(inputs))


def test_deepcopy_is_independent(layer: QuantumLinear, inputs: Tensor) -> None:
    other = copy.deepcopy(layer)
    expected = layer(inputs)
    nn.init.zeros_(layer.weights)
    assert torch.equal(other(inputs), expected)
    assert not torch.equal(layer(inputs), expected)


def test_pickle_and_torch_save(layer: QuantumLinear, inputs: Tensor, tmp_path: Path) -> None:
    expected = layer(inputs)
    torch.save(layer, tmp_path / "layer.pt")
    for other in (pickle.loads(pickle.dumps(layer)), torch.load(tmp_path / "layer.pt", weights_only=False)):
        assert torch.equal(other(inputs), expected)
        assert (other.engine, repr(other)) == (layer.engine, repr(layer))
        other.reset_parameters()
        assert not torch.equal(other(inputs), expected)
    assert len(pickle.dumps(QuantumLinear(12, n_layers=2))) < 8_000  # circuits travel, tables of size 2ⁿ do not


def test_a_pickled_circuit_leaves_its_hash_behind(inputs: Tensor) -> None:
    """Circuits keep their hash, and Python salts the hashes of strings anew in every process."""
    layer = QuantumLinear(3, n_layers=2, groups=(2,))
    expected = layer(inputs)
    assert "_hash" in vars(layer.circuit)
    object.__setattr__(layer.circuit, "_hash", 7)  # as of another process
    other = pickle.loads(pickle.dumps(layer))
    fresh = get_ansatz("ry_ring").build(3, 2)
    assert other.circuit == fresh
    assert hash(other.circuit) == hash(fresh) != 7
    assert torch.equal(other(inputs), expected)


def test_repr_says_what_it_is() -> None:
    layer = QuantumLinear(3, n_layers=2, ansatz="unlu_v", groups=(2,))
    assert repr(layer) == "QuantumLinear(3, n_layers=2, ansatz='unlu_v', groups=(2,))"
    assert repr(QuantumLinear(2)) == "QuantumLinear(2, n_layers=1, ansatz='ry_ring')"


# --- functional calls and transforms -------------------------------------------------------------------------


def test_functional_call(layer: QuantumLinear, inputs: Tensor) -> None:
    values = functional_call(layer, {"weights": torch.zeros_like(layer.weights)}, inputs)
    nn.init.zeros_(layer.weights)
    assert torch.equal(values, layer(inputs))


class _Doubled(nn.Module):
    def forward(self, value: Tensor) -> Tensor:
        return 2 * value


def test_parametrized_weights(layer: QuantumLinear, inputs: Tensor) -> None:
    plain, normed = copy.deepcopy(layer), copy.deepcopy(layer)
    parametrize.register_parametrization(layer, "weights", _Doubled())
    nn.utils.parametrizations.weight_norm(normed, "weights")
    torch.testing.assert_close(normed(inputs), plain(inputs))
    torch.testing.assert_close(layer(inputs), _call(plain, 2 * plain.weights, inputs))
    for module in (layer, normed):
        module(inputs).sum().backward()
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in module.parameters())
    parametrize.remove_parametrizations(layer, "weights")
    assert torch.equal(layer.weights, 2 * plain.weights)


def _call(layer: QuantumLinear, weights: Tensor, inputs: Tensor) -> Tensor:
    return functional_call(layer, {"weights": weights}, inputs)


def test_vmap_is_a_loop(layer: QuantumLinear, inputs: Tensor) -> None:
    torch.testing.assert_close(vmap(layer)(inputs), layer(inputs))
    many = torch.randn(4, *layer.weights.shape)
    values = vmap(lambda weights: _call(layer, weights, inputs))(many)
    torch.testing.assert_close(values, torch.stack([_call(layer, weights, inputs) for weights in many]))


def test_jacrev_grad_and_gradients_per_sample(layer: QuantumLinear, inputs: Tensor) -> None:
    weights = layer.weights.detach().clone().requires_grad_()
    expected = torch.autograd.functional.jacobian(lambda v: _call(layer, v, inputs), weights)
    plain = weights.detach()
    torch.testing.assert_close(grad(lambda v: _call(layer, v, inputs).sum())(plain), expected.sum(dim=(0, 1, 2)))
    torch.testing.assert_close(jacrev(lambda v: _call(layer, v, inputs))(plain), expected)
    each = vmap(grad(lambda v, x: _call(layer, v, x).sum()), in_dims=(None, 0))(plain, inputs)
    torch.testing.assert_close(each, expected.sum(dim=(1, 2)))


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")
def test_jacfwd_and_hessian(layer: QuantumLinear, inputs: Tensor) -> None:
    layer, inputs = layer.double(), inputs.double()
    weights = layer.weights.detach()
    expected = torch.autograd.functional.jacobian(lambda v: _call(layer, v, inputs), weights)
    torch.testing.assert_close(jacfwd(lambda v: _call(layer, v, inputs))(weights), expected)

    def bent(v: Tensor) -> Tensor:
        return _call(layer, v, inputs).sin().sum()

    torch.testing.assert_close(hessian(bent)(weights), torch.autograd.functional.hessian(bent, weights))


# --- FLOPs -------------------------------------------------------------------------------------------------


def flops(layer: QuantumLinear, tokens: int) -> tuple[int, int]:
    """Forward alone, and the rest of forward and backward."""
    inputs = torch.randn(tokens, layer.n_inputs, requires_grad=True)
    with FlopCounterMode(display=False) as forward:
        values = layer(inputs)
    with FlopCounterMode(display=False) as backward:
        values.sum().backward()
    return forward.get_total_flops(), backward.get_total_flops()


def test_flops_of_heisenberg() -> None:
    """Two wires: cos θ₀, cos θ₁ and their product; three operations for each of two angles. Backward is four times."""
    assert flops(QuantumLinear(2, engine="heisenberg"), 10) == (10 * (2 * 3 + 3), 4 * 10 * (2 * 3 + 3))


def test_flops_of_statevector() -> None:
    """Two layers on two wires: the first is a product state, then two rotations of two pairs, six operations each."""
    forward = 10 * (2 * 2 * 6 + 4 * 3 + 4 * 3)
    assert flops(QuantumLinear(2, n_layers=2, engine="statevector"), 10) == (forward, int(forward * 11 / 3))


@pytest.mark.parametrize("engine", ["heisenberg", "statevector"])
def test_flops_grow_with_tokens_and_depth(engine: str) -> None:
    counted = {tokens: flops(QuantumLinear(3, n_layers=2, engine=engine), tokens) for tokens in (50, 100, 150)}
    assert min(counted[50]) > 0
    for a, b, c in zip(*counted.values(), strict=True):
        assert c - b == b - a > 0  # a share for the tokens, and one for the weights
    assert flops(QuantumLinear(3, n_layers=4, engine=engine), 50)[0] > counted[50][0]


# --- processes -----------------------------------------------------------------------------------------------


WORKER = """
import os, sys, torch
from torch import nn
from qvit.quantum import QuantumLinear
torch.set_num_threads(1)
rank = int(os.environ["RANK"])
torch.distributed.init_process_group("gloo")
torch.manual_seed(rank)  # different weights: rank 0's must win
layer = QuantumLinear(3, n_layers=2, groups=(2,), dtype=torch.float64)
model = nn.parallel.DistributedDataParallel(layer)
torch.manual_seed(5)
inputs = torch.randn(8, 2, 3, dtype=torch.float64)
model(inputs[4 * rank : 4 * rank + 4]).square().mean().backward()
if rank == 0:
    torch.save((layer.weights.detach(), layer.weights.grad, inputs), sys.argv[1])
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow("two processes that talk, each of which loads torch")
@pytest.mark.processes
def test_two_processes_average_their_gradients(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo"}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path / "out.pt")],
            env=os.environ | address | {"RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [worker.communicate(timeout=600)[1] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], errors
    weights, averaged, inputs = torch.load(tmp_path / "out.pt")
    layer = QuantumLinear(3, n_layers=2, groups=(2,), dtype=torch.float64)
    layer.load_state_dict({"weights": weights})
    layer(inputs).square().mean().backward()
    torch.testing.assert_close(averaged, layer.weights.grad, atol=1e-12, rtol=0)
