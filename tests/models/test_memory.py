"""Whole models: all that a kept loss holds and that grows with the batch is in autograd's hands."""

import ctypes
import gc
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial

import pytest
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from qvit.models import create_model

KEPT = 2


class _Mallinfo(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    ]


@pytest.fixture
def live() -> Iterator[Callable[[], int]]:
    """Return the bytes that are allocated and not freed."""
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo is None:
        pytest.skip("only glibc counts what is allocated")
    mallinfo.restype = _Mallinfo

    def count() -> int:
        gc.collect()
        found = mallinfo()
        return found.uordblks + found.hblkhd

    gc.collect()
    gc.freeze()  # or each count looks through all that the tests have imported
    yield count
    gc.unfreeze()


def a_loss_holds(live: Callable[[], int], loss: Callable[[], Tensor], *, packed: bool = False) -> float:
    loss().backward()
    before = live()
    with saved_tensors_hooks(lambda _: None, lambda _: None) if packed else nullcontext():
        kept = [loss() for _ in range(KEPT)]
    return (live() - before) / len(kept)


@pytest.mark.long
def test_all_that_grows_is_in_autograds_hands_and_checkpointing_frees_a_block(
    live: Callable[[], int], images: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A qvit has all of ours that keeps anything: circuits, attention of narrow heads, norms."""
    model = create_model("qvit_4q2h", num_classes=3, depth=2)
    batch = images(model.config, 64)

    def loss() -> Tensor:
        return model(batch).square().mean()

    whole = a_loss_holds(live, loss)
    assert whole > 1.5e6, "of no use if the case is small"
    assert a_loss_holds(live, loss, packed=True) < 1.2e5
    for block in model.blocks:
        monkeypatch.setattr(block, "forward", partial(checkpoint, block.forward, use_reentrant=False))
    assert a_loss_holds(live, loss) < 0.4 * whole
