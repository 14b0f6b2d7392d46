"""What a run promises of its seed holds whatever the process around it has done, and the run leaves no trace in it."""

import random
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from qvit.data.arrays import Dataset
from qvit.models import model_config
from qvit.training.config import TrainConfig
from qvit.training.evaluated import evaluate_run
from qvit.training.loop import fit
from qvit.training.options import RunConfig
from qvit.training.prediction import predict
from qvit.training.run import build_model, train_run
from qvit.training.seeding import seeded
from qvit.training.surroundings import surroundings

Disturbance = Callable[[], AbstractContextManager[Any]]


@contextmanager
def setting(write: Callable[[Any], object], value: Any, before: Any) -> Iterator[None]:
    write(value)
    try:
        yield
    finally:
        write(before)


@contextmanager
def drawing_elsewhere() -> Iterator[None]:
    """Another thread draws from all global generators, as often as it can."""
    done, began = threading.Event(), threading.Event()

    def draw() -> None:
        while not done.is_set():
            torch.rand(3), np.random.rand(), random.random()  # noqa: NPY002
            began.set()

    thread = threading.Thread(target=draw)
    thread.start()
    began.wait()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextmanager
def raising_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def reseed(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)


def precision(backend: str, of: str, value: str) -> AbstractContextManager[None]:
    def write(to: str) -> None:
        torch._C._set_fp32_precision_setter(backend, of, to)
        if (backend, to) == ("generic", "none"):  # what torch begins with; it does not come back by itself
            for one in ("conv", "rnn"):
                torch._C._set_fp32_precision_setter("cuda", one, "tf32")

    return setting(write, value, "none")


DISTURBANCES: dict[str, Disturbance] = {
    "seeded generators": lambda: setting(reseed, 7, 8),
    "drawing in another thread": drawing_elsewhere,
    "threads": lambda: setting(torch.set_num_threads, 3, 1),
    "float64 by default": lambda: setting(torch.set_default_dtype, torch.float64, torch.float32),
    "bfloat16 by default": lambda: setting(torch.set_default_dtype, torch.bfloat16, torch.float32),
    "another default device": lambda: torch.device("meta"),
    "no gradients": torch.no_grad,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "deterministic algorithms": lambda: setting(torch.use_deterministic_algorithms, True, False),
    "anomaly detection": torch.autograd.detect_anomaly,
    "medium precision": lambda: setting(torch.set_float32_matmul_precision, "medium", "highest"),
    "bfloat16 products": lambda: precision("mkldnn", "matmul", "bf16"),
    "bfloat16 convolutions": lambda: precision("mkldnn", "conv", "bf16"),
    "bfloat16 everywhere": lambda: precision("generic", "all", "bf16"),
    "no oneDNN": lambda: setting(torch._C._set_mkldnn_enabled, False, True),
    "no NNPACK": lambda: setting(torch._C._set_nnpack_enabled, False, True),
    "no flash attention": lambda: setting(torch.backends.cuda.enable_flash_sdp, False, True),
    "no fast path": lambda: setting(torch.backends.mha.set_fastpath_enabled, False, True),
    "flushed subnormals": lambda: setting(torch.set_flush_denormal, True, False),
    "numpy's errors": lambda: np.errstate(all="raise"),
    "warnings as errors": raising_warnings,
}


@pytest.fixture(autouse=True)
def quiet_anomaly_detection() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Anomaly Detection has been enabled")
        yield


def state() -> dict[str, Any]:
    """What the process has set, as far as anybody can read it."""
    subnormal = torch.full((1,), 5e-324, dtype=torch.float64, device="cpu") * 1.0
    precisions = ("generic", "all"), *((b, o) for b in ("mkldnn", "cuda") for o in ("all", "matmul", "conv", "rnn"))
    try:
        legacy = torch.get_float32_matmul_precision()
    except RuntimeError:
        legacy = "mixed"
    return {
        "generators": (  # not Python's, which beartype draws from in tests
            torch.get_rng_state().numpy().tobytes(),
            np.random.get_state()[1].tobytes(),  # noqa: NPY002
            np.random.get_state()[2:],  # noqa: NPY002
        ),
        "threads": torch.get_num_threads(),
        "default": (torch.get_default_dtype(), torch.get_default_device()),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_anomaly_enabled()),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "precision": (legacy, *(torch._C._get_fp32_precision_getter(*one) for one in precisions)),
        "products": [torch._C._get_fp32_precision_getter("mkldnn", of) for of in ("matmul", "conv", "rnn")],
        "fast": (
            torch._C._get_mkldnn_enabled(),
            torch._C._get_mkldnn_deterministic(),
            torch._C._get_nnpack_enabled(),
            torch._C._get_cudnn_enabled(),
            torch._C._get_cudnn_benchmark(),
            torch.backends.mha.get_fastpath_enabled(),
            torch.backends.cuda.flash_sdp_enabled(),
            torch.backends.cuda.mem_efficient_sdp_enabled(),
            torch.backends.cuda.math_sdp_enabled(),
        ),
        "subnormal": float(subnormal),
        "numpy": np.geterr(),
        "warnings": list(warnings.filters),
    }


class Convolutions(nn.Module):
    """Two layers of a user's own."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Dropout(0.3))
        self.head = nn.Linear(16, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(images.float() / 255).mean((2, 3)))


def made(data: Dataset, name: str) -> nn.Module:
    if name == "convolutions":
        with surroundings(), seeded(3, 0):
            return Convolutions(data.info.num_classes)
    name, options = {"dropout and circuits": ("qvit_4q1h", {"dropout": 0.3}), "wide heads": ("vit_16q2h", {})}[name]
    like = {"in_chans": 3, "num_classes": data.info.num_classes, "img_size": data.size}
    return build_model(model_config(name, **like, **options), data, seed=3)


def train(data: Dataset, name: str) -> bytes:
    """Build, train for an epoch and predict: the bytes of all that came out."""
    model = made(data, name)
    done = fit(model, data, TrainConfig(epochs=1, batch_size=32, tta="never"), seed=3)
    with surroundings(1):
        scores = predict(model, data.test, data.info.task)
    values = [*model.state_dict().values(), torch.from_numpy(scores)]
    return b"".join(value.detach().cpu().double().numpy().tobytes() for value in values) + str(done.history).encode()


@pytest.fixture(scope="module")
def undisturbed(make_data: Callable[..., Dataset]) -> dict[str, bytes]:
    return {name: train(make_data(), name) for name in ("dropout and circuits", "wide heads", "convolutions")}


# Those that could change each kind of network; what the others do is in the first table.
OF_CONVOLUTIONS = ("seeded generators", "autocast", "no oneDNN", "no NNPACK", "bfloat16 convolutions")
OF_WIDE_HEADS = ("medium precision", "bfloat16 products", "no flash attention", "no fast path", "flushed subnormals")
OF_CIRCUITS = ("drawing in another thread", "threads", "float64 by default", "another default device", "inference")
CASES = [
    *((one, "convolutions") for one in OF_CONVOLUTIONS),
    *((one, "wide heads") for one in OF_WIDE_HEADS),
    *((one, "dropout and circuits") for one in OF_CIRCUITS),
]


FRESH = {
    "default": (torch.float32, torch.device("cpu")),
    "gradients": (True, False),
    "autocast": False,
    "precision": ["none", "none", "none"],
    "fast": (True, False, True, True, False, True, True, True, True),
    "subnormal": 5e-324,
    "numpy": {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"},
}


@pytest.mark.parametrize("disturbance", [None, *DISTURBANCES])
def test_inside_it_is_as_in_a_fresh_process_and_afterwards_as_before(disturbance: str | None) -> None:
    with DISTURBANCES[disturbance]() if disturbance else nullcontext():
        before = state()
        with surroundings(2):
            inside = state()
        after = state()
        with pytest.raises(ZeroDivisionError), surroundings(1):
            _ = 1 / 0
        later = state()
        with surroundings():
            assert torch.get_num_threads() == before["threads"]
    assert inside["threads"] == 2
    for name, expected in FRESH.items():
        found = inside[name]
        if name == "gradients":
            found = found[:2]
        elif name == "autocast":
            found = found[0]
        elif name == "precision":
            found = ["none" if torch_says in ("none", "ieee") else torch_says for torch_says in inside["products"]]
        assert found == expected, name
    for left in (after, later):
        for name in left.keys() - ({"generators"} if disturbance == "drawing in another thread" else set()):
            assert left[name] == before[name], name


@pytest.mark.trains
@pytest.mark.parametrize(("disturbance", "name"), CASES)
def test_the_same_bits_and_no_trace(
    make_data: Callable[..., Dataset], undisturbed: dict[str, bytes], disturbance: str, name: str
) -> None:
    with DISTURBANCES[disturbance]():
        before = state()
        found = train(make_data(), name)
        after = state()
    assert found == undisturbed[name]
    if disturbance == "drawing in another thread":
        del before["generators"], after["generators"]
    assert after == before, [key for key in after if after[key] != before[key]]


@pytest.mark.trains
def test_another_seed_gives_other_bits(make_data: Callable[..., Dataset], undisturbed: dict[str, bytes]) -> None:
    """The table above compares something."""
    assert train(make_data(seed=1), "wide heads") != undisturbed["wide heads"]


@contextmanager
def disorder() -> Iterator[None]:
    """What can be wrong at the same time."""
    names = ("seeded generators", "threads", "float64 by default", "bfloat16 everywhere", "no flash attention")
    with ExitStack() as made:
        for name in (*names, "another default device", "autocast", "no gradients", "flushed subnormals"):
            made.enter_context(DISTURBANCES[name]())
        yield


@pytest.mark.trains
def test_a_run_and_its_evaluation(
    config: Callable[..., RunConfig], kept: Callable[[Path], dict[str, bytes]], tmp_path: Path
) -> None:
    settings = config(epochs=1, model="qvit_4q1h", dropout=0.2, tta="never")
    plain = train_run(settings, tmp_path / "plain")
    figures = evaluate_run(plain)
    with disorder():
        before = state()
        run = train_run(settings, tmp_path / "run")
        found = evaluate_run(run)
        model = run.load_model()
        assert state() == before
    assert kept(run.folder) == kept(plain.folder)
    assert found == figures == plain.result.test
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    assert {value.device.type for value in model.state_dict().values()} == {"cpu"}


@pytest.mark.trains
def test_what_is_done_between_epochs(
    config: Callable[..., RunConfig], kept: Callable[[Path], dict[str, bytes]], tmp_path: Path
) -> None:
    def disturb(record: dict[str, Any], seconds: float) -> None:
        reseed(record.epoch)
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(3)

    settings = config(dropout=0.2, tta="never")
    plain = train_run(settings, tmp_path / "plain")
    run = train_run(settings, tmp_path / "run", on_epoch=disturb)
    assert kept(run.folder) == kept(plain.folder)
    assert torch.get_default_dtype() == torch.float32


def test_ctrl_c_at_the_begin_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    write, calls = torch.set_default_dtype, []

    def interrupted(dtype: torch.dtype) -> None:
        write(dtype)
        calls.append(dtype)
        if len(calls) == 1:
            raise KeyboardInterrupt

    with setting(write, torch.float64, torch.get_default_dtype()):
        monkeypatch.setattr(torch, "set_default_dtype", interrupted)
        with pytest.raises(KeyboardInterrupt), surroundings():
            pass
        assert torch.get_default_dtype() is torch.float64
    assert calls[0] is torch.float32
