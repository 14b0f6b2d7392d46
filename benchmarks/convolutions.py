"""Look for memory errors in the networks' layers as they run on a processor with AVX2 and without AVX-512.

    python benchmarks/convolutions.py [--repetitions 200] [--family resnet18 …]

Needs valgrind and an x86-64 processor. First the defect of torch 2.13.0 (see `models/convolutions.py`) has to be found
in a bare layer, or else nothing that follows means anything. Then every family at three odd widths, and as shipped,
takes one training step and one evaluation in valgrind, which counts reads and writes outside of what was allocated;
and last the odd widths take `--repetitions` steps and evaluations without it, where a heap that is damaged ends a
process. Networks that are not ours are trained as `fit` does with a user's. timm's take part where it is installed.
Exits with 1 unless the defect is found, and nothing else.
"""

import argparse
import ctypes
import importlib
import importlib.util
import mmap
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qvit.errors import CircuitWarning
from qvit.models import Network, NetworkConfig, Preprocess, create_model
from qvit.models.convolutions import unstrided
from qvit.training.batches import Batch
from qvit.training.config import TrainConfig
from qvit.training.prediction import evaluating
from qvit.training.step import make_optimizer, train_step

AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "NUMBA_CPU_NAME": "haswell",  # valgrind knows no AVX-512, whatever the processor has
    "NUMBA_CPU_FEATURES": "",
    "OPENBLAS_CORETYPE": "Haswell",
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"),
}
# Large blocks between the allocated ones, so that a write beyond one of them is seen and does no harm.
VALGRIND = ("valgrind", "--undef-value-errors=no", "--error-limit=no", "--redzone-size=4096")
COUNT_ERRORS = 0x1201  # valgrind.h's VG_USERREQ__COUNT_ERRORS
WIDTHS = (3, 5, 7)
CLASSES, SIDE = 3, 32  # strides divide the sizes of all maps: only then is oneDNN's faulty path taken
RESNETS = ("resnet18", "resnet50")
FAMILIES = (*RESNETS, "stranger", "densenet", "efficientnet", "monai_vit", "vit", "qvit", "timm")


class ErrorCount:
    """How many errors valgrind has found in this process so far: its client request, in machine code."""

    # mov rax, rdi; mov rdx, rsi; rol rdi by 3, 13, 61 and 51 bits and xchg rbx, rbx, which valgrind knows; mov rax, rdx
    CODE = bytes.fromhex("4889f8 4889f2 48c1c703 48c1c70d 48c1c73d 48c1c733 4887db 4889d0 c3")

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._page.write(self.CODE)
        where = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
        self._ask = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64)(where)

    def __call__(self) -> int:
        """Return the number; -1 where no valgrind answers."""
        request = (ctypes.c_uint64 * 6)(COUNT_ERRORS)
        return self._ask(ctypes.addressof(request), -1)


class Stranger(nn.Module):
    """A user's network in channels_last: what comes before a body that gives `(b, 3)` logits."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.preprocess = Preprocess(3)
        self.body = body.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of bytes `(b, 3, s, s)`."""
        said = self.body(self.preprocess(images).contiguous(memory_format=torch.channels_last))
        return said[0] if isinstance(said, tuple) else said


def network(family: str, width: int) -> nn.Module:
    """Return a network of a family whose layers have odd numbers of channels around `width`."""
    if family in RESNETS:
        return Network(NetworkConfig(family, img_size=SIDE, num_classes=CLASSES, width=width / 64))
    if family in ("vit", "qvit"):
        return create_model(f"{family}_{width}q1h", img_size=SIDE, num_classes=CLASSES)
    if family == "timm":
        return Stranger(_timm(width))
    nets = importlib.import_module("monai.networks.nets")
    match family:
        case "stranger":
            sizes = [width, 2 * width, 4 * width, 8 * width]
            body = nets.ResNet(
                "bottleneck", [1, 1, 1, 1], sizes, spatial_dims=2, n_input_channels=3, num_classes=CLASSES
            )
        case "densenet":
            body = nets.DenseNet(2, 3, CLASSES, init_features=width, growth_rate=width, block_config=(2, 2, 2))
        case "efficientnet":
            outs = (width, 3 * width, 3 * width + 2)
            stages = zip(("s11_e1", "s22_e6", "s22_e6"), (3, 3, 5), (32, *outs), outs, strict=False)
            blocks = [f"r1_k{kernel}_{how}_i{i}_o{o}_se0.25" for how, kernel, i, o in stages]
            body = nets.EfficientNet(blocks, num_classes=CLASSES, width_coefficient=0, image_size=SIDE)  # as written
        case _:
            body = nets.ViT(
                3, SIDE, 8, hidden_size=2 * width + 1, mlp_dim=3 * width, num_layers=1, num_heads=1, spatial_dims=2,
                classification=True, num_classes=CLASSES, post_activation=None,
            )  # fmt: skip
    return Stranger(body)


def _timm(width: int) -> nn.Module:
    resnet, v2, layers = (
        importlib.import_module(f"timm.{name}") for name in ("models.resnet", "models.resnetv2", "layers")
    )
    sizes = [4 * width, 8 * width, 12 * width, 16 * width]
    if width == WIDTHS[-1]:  # weights that are standardised in a forward of the layer's own
        return v2.ResNetV2(
            layers=(1, 1, 1, 1),
            channels=sizes,
            num_classes=CLASSES,
            conv_layer=layers.StdConv2d,
            norm_layer=layers.BatchNormAct2d,
        )
    return resnet.ResNet(
        resnet.Bottleneck, (1, 1, 1, 1), channels=sizes, num_classes=CLASSES, avg_down=width == WIDTHS[0]
    )


def shipped(family: str) -> nn.Module | None:
    """Return a family as it is shipped; None where there is only what a user has built, or nothing small enough."""
    names = {
        "densenet": "densenet121",
        "efficientnet": "efficientnet_b0",
        "monai_vit": "monai_vit",
        "vit": "vit_4q2h",
        "qvit": "qvit_4q2h",
    }
    return create_model(names[family], img_size=SIDE, num_classes=CLASSES) if family in names else None


def actions(model: nn.Module) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return what takes a training step of two images, and what evaluates one image, as our loop does."""
    config, count = TrainConfig(), 2
    optimizer = make_optimizer(model, config)
    images = torch.randint(0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8)
    labels = torch.arange(count) % CLASSES
    batch = Batch(images, labels, torch.arange(count), torch.zeros(count, dtype=torch.long))

    def objective(model: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(model(batch.images), batch.labels, reduction="none")

    def train() -> None:
        model.train()
        with unstrided(model, nn.Module()):
            train_step(model, batch, objective, optimizer, lr=1e-4, clip_norm=1.0)

    def evaluate() -> None:
        with torch.no_grad(), evaluating(model):
            model(images[:1])

    return train, evaluate


def planted() -> Callable[[], None]:
    """Return what steps into the defect: a layer of torch's own, with a stride."""
    layer = nn.Conv2d(4, 8, 1, stride=2, bias=False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def step() -> None:
        pixels = torch.randn(8, 4, 8, 8).contiguous(memory_format=torch.channels_last)
        layer(pixels.requires_grad_()).sum().backward()

    return step


def layer_shapes(model: nn.Module, work: Callable[[], None]) -> set[str]:
    """Return what is distinct among layers and their inputs, while some work is done."""
    seen: set[str] = set()
    hooks = [
        layer.register_forward_pre_hook(
            lambda layer, given: seen.add(f"{layer} {[tuple(one.shape) for one in given if isinstance(one, Tensor)]}")
        )
        for layer in model.modules()
        if not list(layer.children())
    ]
    work()
    for hook in hooks:
        hook.remove()
    return seen


def cases(families: list[str]) -> Iterator[tuple[str, nn.Module]]:
    """Yield the networks with their names."""
    for family in families:
        yield from ((f"{family}, width {width}", network(family, width)) for width in WIDTHS)
        as_shipped = shipped(family)
        if as_shipped is not None:
            yield f"{family}, as shipped", as_shipped


# --- in child processes ---


def in_valgrind(families: list[str]) -> None:
    """Count errors, first those of the planted defect; needs valgrind around this process."""
    torch.manual_seed(0)
    count = ErrorCount()
    before = count()
    planted()()
    print(f"FOUND {count() - before} planted", flush=True)
    for name, model in cases(families):
        before, start = count(), time.perf_counter()
        train, evaluate = actions(model)
        shapes = layer_shapes(model, train)
        evaluate()
        found = count() - before
        print(f"FOUND {found} {name}: {len(shapes)} layer shapes, {time.perf_counter() - start:.0f} s", flush=True)
    print("DONE", flush=True)


def plainly(families: list[str], repetitions: int) -> None:
    """Train and evaluate, again and again."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for family in families:
        for width in WIDTHS:
            train, evaluate = actions(network(family, width))
            for _ in range(repetitions):
                train()
                evaluate()
    print("DONE", torch.backends.cpu.get_cpu_capability(), flush=True)


def repeat_planted(repetitions: int) -> None:
    """Step into the defect, again and again."""
    torch.set_num_threads(1)
    step = planted()
    for _ in range(repetitions):
        step()


# --- the whole ---


def child(*arguments: object, before: tuple[str, ...] = (), cache: Path) -> subprocess.CompletedProcess[str]:
    """Run this script in a process with AVX2 alone; its output goes to this one's as well."""
    command = [*before, sys.executable, __file__, *map(str, arguments)]
    # What Python itself allocates is of no interest, and in valgrind, with such blocks between, it would take 20 GB.
    env = os.environ | AVX2 | {"PYTHONMALLOC": "pymalloc" if before else "malloc", "NUMBA_CACHE_DIR": str(cache)}
    return subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


def check_in_valgrind(families: list[str], folder: Path) -> bool:
    """Say what valgrind finds; returns whether that is the planted defect and no other."""
    log = folder / "valgrind.log"
    chosen = [word for family in families for word in ("--family", family)]
    done = child("--child", "valgrind", *chosen, before=(*VALGRIND, f"--log-file={log}"), cache=folder)
    found = [line.split(maxsplit=2)[1:] for line in done.stdout.splitlines() if line.startswith("FOUND")]
    for number, name in found:
        print(f"{int(number):5d} errors in valgrind: {name}")
    if not done.stdout.endswith("DONE\n"):
        print(f"The process in valgrind ended with {done.returncode}:\n{done.stdout[-3000:]}")
        return False
    return int(found[0][0]) > 0 and not any(int(number) for number, _ in found[1:])


def main() -> int:
    """Run all; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--family", choices=FAMILIES, action="append")
    parser.add_argument("--child", choices=("valgrind", "plain", "planted"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    families = options.family or [name for name in FAMILIES if name != "timm" or importlib.util.find_spec("timm")]
    warnings.simplefilter("ignore", CircuitWarning)
    match options.child:
        case "valgrind":
            in_valgrind(families)
            return 0
        case "plain":
            plainly(families, options.repetitions)
            return 0
        case "planted":
            repeat_planted(options.repetitions)
            return 0
    if platform.machine() != "x86_64" or shutil.which("valgrind") is None:
        sys.exit("This needs an x86-64 processor and valgrind (Debian: apt-get install valgrind).")
    with tempfile.TemporaryDirectory() as name:
        folder, right = Path(name), True
        died = child("--child", "planted", "--repetitions", options.repetitions, cache=folder).returncode
        print(f"The planted defect, {options.repetitions} times: exit status {died}")
        for family in families:
            start = time.perf_counter()
            chosen = ("--family", family, "--repetitions", options.repetitions)
            done = child("--child", "plain", *chosen, cache=folder)
            right &= done.returncode == 0
            print(
                f"{family}: {options.repetitions} steps and evaluations of {len(WIDTHS)} widths, exit status "
                f"{done.returncode}, {time.perf_counter() - start:.0f} s"
            )
            if done.returncode:
                print(done.stdout[-2000:])
        # Last, as the compiled kernels lie in their cache by now: valgrind would take minutes to compile them.
        right &= check_in_valgrind(families, folder)
    print("Nothing but the planted defect was found." if right else "FAILED")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
