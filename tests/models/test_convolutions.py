"""Convolutions of one pixel with a stride: none is computed with it, and nothing else about them changes."""

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from qvit.models import Network, NetworkConfig, create_model
from qvit.models.convolutions import Unstrided, differentiate, strided_pixels, unstride, unstrided
from qvit.models.networks import NETWORKS

GUARDED = """
import torch
from torch import nn
from qvit.models.convolutions import unstride
torch.set_num_threads(1)  # with two it rarely dies
layer = nn.Conv2d(4, 8, 1, stride=2, bias=False).to(memory_format=torch.channels_last)
unstride(layer)
for _ in range(60):
    pixels = torch.randn(8, 4, 8, 8).contiguous(memory_format=torch.channels_last).requires_grad_()
    layer(pixels).sum().backward()
print(torch.backends.cpu.get_cpu_capability())
"""


class Standardised(nn.Conv2d):
    """A convolution with a forward of its own, as timm has them."""

    def forward(self, pixels: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        return F.conv2d(pixels, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "planted": (lambda: nn.Conv2d(4, 8, 1, stride=2, bias=False), (8, 4, 8, 8)),
    "odd side": (lambda: nn.Conv2d(3, 5, 1, stride=2), (2, 3, 7, 7)),
    "stride 3": (lambda: nn.Conv2d(3, 5, 1, stride=3), (1, 3, 9, 8)),
    "one way": (lambda: nn.Conv2d(3, 5, 1, stride=(2, 1)), (2, 3, 8, 6)),
    "groups": (lambda: nn.Conv2d(6, 4, 1, stride=2, groups=2), (2, 6, 8, 8)),
    "valid, dilated": (lambda: nn.Conv2d(3, 5, 1, stride=2, padding="valid", dilation=2), (2, 3, 8, 8)),
    "larger than the image": (lambda: nn.Conv2d(3, 5, 1, stride=4), (2, 3, 2, 2)),
    "one image": (lambda: nn.Conv2d(3, 5, 1, stride=2), (3, 6, 6)),
    "no image": (lambda: nn.Conv2d(3, 5, 1, stride=2), (0, 3, 6, 6)),
    "reflecting": (lambda: nn.Conv2d(3, 5, 1, stride=2, padding_mode="reflect"), (2, 3, 6, 6)),
    "pads by itself": (lambda: nn.Conv2d(3, 5, 1, stride=2, padding=1, padding_mode="reflect"), (2, 3, 6, 6)),
    "of its own": (lambda: Standardised(3, 5, 1, stride=2), (2, 3, 6, 6)),
    "1-d": (lambda: nn.Conv1d(3, 5, 1, stride=2), (2, 3, 9)),
    "3-d": (lambda: nn.Conv3d(3, 5, 1, stride=(1, 2, 2)), (2, 3, 4, 4, 4)),
}
HARMLESS = {
    "no stride": nn.Conv2d(3, 5, 1),
    "two pixels": nn.Conv2d(3, 5, (1, 2), stride=2),
    "padded": nn.Conv2d(3, 5, 1, stride=2, padding=1),
    "transposed, of two pixels": nn.ConvTranspose2d(3, 5, 2, stride=2),
}
# The gradients of these are strided convolutions of maps that the stride divides.
TRANSPOSED: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "planted": (nn.ConvTranspose2d(3, 5, 1, stride=2, output_padding=1), (8, 3, 8, 8)),
    "one way": (nn.ConvTranspose2d(3, 5, 1, stride=(2, 1), output_padding=(1, 0), bias=False), (2, 3, 5, 4)),
    "groups": (nn.ConvTranspose2d(6, 4, 1, stride=3, output_padding=2, groups=2), (2, 6, 4, 5)),
    "one image": (nn.ConvTranspose2d(3, 5, 1, stride=2, output_padding=1), (3, 4, 4)),
    "1-d": (nn.ConvTranspose1d(3, 5, 1, stride=2, output_padding=1), (2, 3, 9)),
    "3-d": (nn.ConvTranspose3d(3, 5, 1, stride=(1, 2, 2), output_padding=(0, 1, 1)), (2, 3, 4, 3, 4)),
}


def computed(layer: nn.Module, pixels: Tensor) -> list[Tensor]:
    """Outputs and all gradients, in double precision."""
    layer, pixels = copy.deepcopy(layer).double(), pixels.double().detach().requires_grad_()
    outputs = layer(pixels)
    weights = torch.linspace(-1.0, 2.0, outputs.numel(), dtype=torch.float64).view(outputs.shape)
    return [outputs, *torch.autograd.grad((outputs * weights).sum(), [pixels, *layer.parameters()])]


def strides_seen(work: Callable[[], Any]) -> list[Any]:
    """The strides of all convolutions of one pixel that torch computes, gradients among them."""
    seen: list[Any] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            packet = func.overloadpacket
            if packet is torch.ops.aten.convolution and not args[6] and set(args[1].shape[2:]) == {1}:
                seen.append(args[3])
            if packet is torch.ops.aten.convolution_backward and set(args[2].shape[2:]) == {1}:
                stride, transposed, sides = args[4], args[7], args[0].shape[2:]
                if not transposed or all(side % step == 0 for side, step in zip(sides, stride, strict=True)):
                    seen.append(stride)
            return func(*args, **kwargs or {})

    with Watch():
        work()
    return [stride for stride in seen if set(stride) != {1}]


@pytest.mark.parametrize("name", CASES)
def test_nothing_changes_but_the_stride(name: str) -> None:
    make, shape = CASES[name]
    plain, pixels = make(), torch.randn(shape)
    layer = copy.deepcopy(plain)
    called: list[int] = []
    layer.register_forward_hook(lambda *_: called.append(1))
    assert strided_pixels(layer) == [layer]
    unstride(layer)
    assert strided_pixels(layer) == []
    assert isinstance(layer, type(plain))
    assert repr(layer) == repr(plain)
    assert list(layer.state_dict()) == list(plain.state_dict())
    for mine, expected in zip(computed(layer, pixels), computed(plain, pixels), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-12, atol=1e-12)
    assert called
    assert strides_seen(lambda: computed(plain, pixels)), "the case is of no use if torch never takes the stride"
    assert strides_seen(lambda: computed(layer, pixels)) == []
    kind = type(layer)
    unstride(layer)
    assert type(layer) is kind


@pytest.mark.parametrize("name", CASES)
def test_a_block_does_it_for_all_who_call(name: str) -> None:
    make, shape = CASES[name]
    plain, pixels = make(), torch.randn(shape)
    expected = computed(plain, pixels)

    def inside() -> list[Tensor]:
        with Unstrided():
            return computed(plain, pixels)

    for mine, value in zip(inside(), expected, strict=True):
        torch.testing.assert_close(mine, value, rtol=1e-12, atol=1e-12)
    assert strides_seen(inside) == []
    assert strided_pixels(plain) == [plain]


@pytest.mark.parametrize("name", HARMLESS)
def test_others_are_left_alone(name: str) -> None:
    layer, pixels = HARMLESS[name], torch.randn(2, 3, 6, 6)
    kind, expected = type(layer), layer(pixels)
    unstride(layer)
    assert type(layer) is kind
    with Unstrided():
        assert torch.equal(layer(pixels), expected)


@pytest.mark.parametrize("name", TRANSPOSED)
def test_no_stride_divides_what_a_transposed_one_returns(name: str) -> None:
    plain, shape = TRANSPOSED[name]
    layer, pixels = copy.deepcopy(plain), torch.randn(shape)
    expected = computed(plain, pixels)
    assert strided_pixels(layer) == [layer]
    unstride(layer)
    assert strides_seen(lambda: computed(plain, pixels))
    assert strides_seen(lambda: computed(layer, pixels)) == []
    for mine, value in zip(computed(layer, pixels), expected, strict=True):
        torch.testing.assert_close(mine, value, rtol=1e-12, atol=1e-12)
    with Unstrided():
        torch.testing.assert_close(computed(plain, pixels), expected, rtol=1e-12, atol=1e-12)


def test_a_transposed_one_may_be_told_the_size() -> None:
    layer, pixels = nn.ConvTranspose2d(3, 5, 1, stride=2), torch.randn(2, 3, 4, 4)
    expected = layer(pixels, output_size=[8, 8])
    unstride(layer)
    assert torch.equal(layer(pixels, output_size=[8, 8]), expected)
    assert strides_seen(lambda: layer(pixels, output_size=[8, 8]).sum().backward()) == []


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # of torch, to itself
@pytest.mark.parametrize("transposed", [False, True])
def test_programs_and_operators_are_seen(transposed: bool) -> None:
    """torch.export writes calls of operators, and of the most general one when it decomposes."""
    kind, more = (nn.ConvTranspose2d, {"output_padding": 1}) if transposed else (nn.Conv2d, {})
    layer, pixels = kind(4, 8, 1, stride=2, **more), torch.randn(2, 4, 8, 8)
    program = torch.export.export(layer, (pixels,))
    for exported in (program, program.run_decompositions()):
        plain = exported.module()

        def step(plain: nn.Module = plain) -> None:
            with Unstrided():
                differentiate(plain(pixels.requires_grad_()).sum())

        assert strides_seen(lambda plain=plain: plain(pixels).sum().backward())
        assert strides_seen(step) == []
        with Unstrided():
            torch.testing.assert_close(plain(pixels), layer(pixels))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_scripted_parts_are_trained_without_onednn() -> None:
    """No mode sees what TorchScript calls."""
    scripted, was = torch.jit.script(nn.Conv2d(4, 8, 1, stride=2)), torch._C._get_mkldnn_enabled()
    ours = create_model("vit_4q1h")
    ours.head = nn.Sequential(ours.head, scripted)
    for model in (scripted, ours, nn.Sequential(scripted)):
        with unstrided(model, nn.Module()):
            assert not torch._C._get_mkldnn_enabled()
        assert torch._C._get_mkldnn_enabled() == was
    with unstrided(nn.Identity(), nn.Module()):
        assert torch._C._get_mkldnn_enabled() == was


def test_every_way_to_write_a_stride() -> None:
    pixels, weight = torch.randn(2, 3, 6, 6), torch.randn(4, 3, 1, 1)
    expected = F.conv2d(pixels, weight, stride=2)
    with Unstrided():
        for options in (
            {"stride": 2},
            {"stride": [2]},
            {"stride": (2, 2), "padding": "valid"},
            {"stride": 2, "bias": None},
        ):
            torch.testing.assert_close(F.conv2d(pixels, weight, **options), expected)
        torch.testing.assert_close(F.conv2d(pixels, weight, torch.ones(4), 2, [0], 1, 1), expected + 1)
        torch.testing.assert_close(F.conv2d(weight=weight, input=pixels, stride=2), expected)
        with pytest.raises(RuntimeError, match="Given groups=1"):
            F.conv2d(pixels[:, :2], weight, stride=2)


def test_copies_and_pickles_are_without_a_stride_too() -> None:
    net = nn.Sequential(nn.Conv2d(4, 8, 1, stride=2), nn.ReLU())
    unstride(net)
    net[0].register_forward_pre_hook(_print_nothing)
    pixels = torch.randn(2, 4, 6, 6)
    for twin in (copy.deepcopy(net), copy.copy(net), pickle.loads(pickle.dumps(net))):
        assert strided_pixels(twin) == []
        assert type(twin[0]) is type(net[0])
        assert len(twin[0]._forward_pre_hooks) == 1
        assert torch.equal(twin(pixels), net(pixels))
    twin = copy.deepcopy(net)
    twin.load_state_dict({name: value + 1 for name, value in net.state_dict().items()})
    assert torch.equal(twin[0].weight, net[0].weight + 1)
    assert not torch.equal(twin(pixels), net(pixels))


def _print_nothing(module: nn.Module, args: Any) -> None:
    pass


@pytest.mark.long
@pytest.mark.parametrize("arch", NETWORKS)
def test_no_network_of_ours_has_one(arch: str) -> None:
    with torch.device("meta"):
        for stem in ("auto", "imagenet") if arch != "monai_vit" else ("auto",):
            net = Network(NetworkConfig(arch, img_size=32, stem=stem))
            assert strided_pixels(net) == []
    resnets = arch.startswith("resnet")
    assert any(getattr(part, "kernel_size", 0) == (1, 1) and part.stride == (2, 2) for part in net.modules()) is resnets


def test_a_step_of_ours_takes_no_stride() -> None:
    net = create_model("resnet18", width=1 / 16, img_size=16)
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    assert strides_seen(lambda: net(images).sum().backward()) == []


def test_what_needs_no_block_has_none() -> None:
    """A block costs small models a tenth of a step."""
    ours, nothing = create_model("vit_4q1h"), nn.Module()
    strange = nn.Conv2d(4, 8, 1, stride=2)
    assert not isinstance(unstrided(ours, nothing), Unstrided)
    assert not isinstance(unstrided(create_model("resnet18", width=1 / 16), nothing), Unstrided)
    assert isinstance(unstrided(ours, strange), Unstrided)
    assert isinstance(unstrided(strange, nothing), Unstrided)
    assert isinstance(unstrided(nn.Identity(), nothing), Unstrided), "what it calls is not known"
    ours.head = strange
    assert isinstance(unstrided(ours, nothing), Unstrided)


class Calls(nn.Module):
    """A part that calls a convolution which is no module."""

    def forward(self, pixels: Tensor) -> Tensor:
        return F.conv2d(pixels, torch.ones(1, 1, 1, 1), stride=2)


def test_strange_parts_and_objectives_need_the_block() -> None:
    ours = create_model("vit_4q1h")
    assert isinstance(unstrided(ours, Calls()), Unstrided)
    assert isinstance(unstrided(ours, lambda model, batch: model(batch.images)), Unstrided)
    assert isinstance(unstrided(ours, Calls().forward), Unstrided)
    ours.head = Calls()
    assert isinstance(unstrided(ours, nn.Module()), Unstrided)


def test_checkpointing_inside_a_block() -> None:
    layer, pixels = nn.Conv2d(4, 8, 1, stride=2), torch.randn(2, 4, 8, 8, requires_grad=True)

    def step() -> None:
        with Unstrided():
            differentiate(checkpoint(layer, pixels, use_reentrant=False).sum())

    assert strides_seen(step) == []
    expected = torch.autograd.grad(layer(pixels).sum(), pixels)[0]
    torch.testing.assert_close(pixels.grad, expected)


def test_gradients_are_those_of_torch_and_add_up() -> None:
    layer = nn.Linear(3, 2)
    (layer(torch.ones(3)) ** 2).sum().backward()
    expected = layer.weight.grad.clone()
    differentiate((layer(torch.ones(3)) ** 2).sum())
    assert torch.equal(layer.weight.grad, 2 * expected)
    with pytest.raises(RuntimeError, match="does not require grad"):
        differentiate(torch.ones(()))


@pytest.mark.processes
@pytest.mark.slow("what may die has to do so in a process of its own, which imports torch")
def test_the_planted_case_on_avx2_without_avx512() -> None:
    """Without `unstride` this process died twelve times of twelve; see benchmarks/convolutions.py."""
    env = os.environ | {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([sys.executable, "-c", GUARDED], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() in ("AVX2", "DEFAULT", "NO AVX")  # whatever this processor has at most
