"""One run in several processes, as `torchrun` starts them, with the numbers of one process up to rounding.

Every process draws the same order and augmentation, takes its share of each batch, and adds its gradients to those of
the others, so that all take the same step. Only the first one, the lead, writes. torch's DistributedDataParallel is
not enough: it handles `forward` alone, while objectives call other methods of a model and have parameters of their own.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from qvit.errors import ConfigError, QvitError, RunError
from qvit.training.saved import on_cpu

# One process may download, or ask a teacher about all images, while the others wait for it. torchrun ends them all
# when one fails; no limit is needed for that.
PATIENCE = timedelta(days=2)
SYNCHRONISED = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)  # not their subclasses, which do more

T = TypeVar("T")


@dataclass(frozen=True)
class Team:
    """One process among those of a run: number `rank` of `count`, and number `local_rank` on its machine.

    `device` is where the processes exchange tensors. Every process has to call the methods that exchange anything, all
    at the same place; they raise `RunError` if another process has ended. With one process alone, they do nothing and
    cost nothing.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - immutable

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    @property
    def place(self) -> tuple[int, ...]:
        """What makes this process's random streams its own; the lead's are those of one process alone."""
        return () if self.leads else (self.rank,)

    # --- a batch ---

    def share(self, values: Shaped[Tensor, "b ..."]) -> Shaped[Tensor, "s ..."]:
        """Return this process's part: shares follow each other, differ in length by one at most, and may be empty."""
        return values if self.count == 1 else values.tensor_split(self.count)[self.rank]

    def part(self, losses: Float[Tensor, "*m s"]) -> Float[Tensor, "*m"]:
        """Return what this process differentiates of each model; `combine` makes the batch's mean of all parts."""
        return losses.mean(dim=-1) if self.count == 1 else losses.sum(dim=-1)

    @torch.no_grad()
    def combine(
        self, part: Float[Tensor, "*m"], parameters: Sequence[nn.Parameter], *, images: int
    ) -> Float[Tensor, "*m"]:
        """Return each model's mean loss over the batch, and replace the gradients of this part by those of that mean.

        `images` is the length of this process's share. A parameter has a gradient afterwards if it had one anywhere.
        """
        if self.count == 1:
            return part.detach()
        has_gradient = [parameter.grad is not None for parameter in parameters]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        counts = part.new_tensor([images, *has_gradient])
        sizes = [part.numel(), len(counts), *(gradient.numel() for gradient in gradients)]
        flat = torch.cat([part.flatten(), counts, *(gradient.flatten() for gradient in gradients)])
        self._add_up(flat)
        total, counts, *sums = flat.split(sizes)
        all_images, *holders = counts.tolist()
        for parameter, gradient, summed, held in zip(parameters, gradients, sums, holders, strict=True):
            if held:  # one without a gradient anywhere keeps none: not even weight decay moves it then
                parameter.grad = gradient.copy_(summed.view_as(gradient)).div_(all_images)
        return total.view_as(part) / all_images

    def gather(self, part: Float[Tensor, "g s k"], images: int) -> Float[Tensor, "g b k"]:
        """Return the results of all processes for their shares of `images` images, in order, on the CPU."""
        if self.count == 1:
            return part
        # A sum with zeros is exact, and needs no sizes of shares.
        whole = part.new_zeros(part.shape[0], images, part.shape[2])
        whole[:, self.share(torch.arange(images))] = part
        whole = whole.to(self.device)
        self._add_up(whole)
        return whole.cpu()

    def _add_up(self, values: Tensor) -> None:
        import torch.distributed as dist

        with _exchanging():
            dist.all_reduce(values)

    # --- work and its errors ---

    def lead(self, work: Callable[[], T]) -> T:
        """Do some work in the lead alone; return its result, or raise its error, in all processes."""
        if self.count == 1:
            return work()
        import torch.distributed as dist

        result, error = _attempt(work) if self.leads else (None, None)
        told: list[Any] = [result, self._describe(error)]
        with _exchanging():
            dist.broadcast_object_list(told, src=0)
        _raise(error, told[1:])
        return told[0]

    def in_turn(self, work: Callable[[], T]) -> T:
        """Do some work in the first process of each machine, and then in the others, which find what it left on disk.

        An error of one process is raised in all.
        """
        if self.count == 1:
            return work()
        result: Any = None
        for first in (True, False):
            error = None
            if first == (self.local_rank == 0):
                result, error = _attempt(work)
            _raise(error, self.collect(self._describe(error)))
        return result

    def collect(self, value: T) -> list[T]:
        """Return the values of all processes, in order."""
        if self.count == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.count
        with _exchanging():
            dist.all_gather_object(values, value)
        return values

    def _describe(self, error: Exception | None) -> str | None:
        if error is None:
            return None
        kind = "" if isinstance(error, QvitError) else f"{type(error).__name__}: "
        return f"Process {self.rank}: {kind}{error}"

    # --- models ---

    def spread(self, module: nn.Module) -> None:
        """Give every process the lead's parameters and buffers."""
        if self.count > 1:
            module.load_state_dict(self.lead(lambda: on_cpu(module.state_dict())))

    def check_norms(self, model: nn.Module, device: str) -> None:
        """Raise `ConfigError` for batch normalisation that would see one process's share of a batch only.

        torch can normalise over several processes only on GPUs.
        """
        norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
        if self.count == 1 or not norms:
            return
        if not device.startswith("cuda"):
            raise ConfigError(
                f"This model has batch normalisation, whose statistics cannot be taken over {self.count} processes on "
                f"'{device}'. Train it in one process, or on GPUs (device=cuda), or take a model without, such as ours."
            )
        strange = {type(module).__name__ for module in norms if type(module) not in SYNCHRONISED}
        if strange:
            raise ConfigError(
                f"This model's {', '.join(sorted(strange))} cannot take statistics over {self.count} processes; "
                "train it in one process."
            )

    def join_norms(self, model: nn.Module, device: str, batches: Callable[[], Sequence[Tensor]]) -> None:
        """Make batch normalisation inside a model, which is on `device`, see the whole of each batch.

        Raises `ConfigError` as `check_norms` does, and if a process would have no image of one of the `batches`.
        """
        self.check_norms(model, device)
        if self.count == 1 or not any(isinstance(module, _BatchNorm) for module in model.modules()):
            return
        smallest = min(map(len, batches()))
        if smallest < self.count:
            raise ConfigError(
                f"The smallest batch has {smallest} images, and batch normalisation needs one for each of "
                f"{self.count} processes; use fewer processes or another batch_size."
            )
        nn.SyncBatchNorm.convert_sync_batchnorm(model)


ALONE = Team()


@contextmanager
def assemble(device: str) -> Iterator[Team]:
    """Yield the team that computes on `device`: the processes that torchrun has started, or this one alone.

    With "cuda" every process of a machine gets a GPU of its own, in the order of their local ranks. A group of
    processes that exists already is used, and not closed. Raises `ConfigError` for a device that several processes
    cannot use, and for an environment that torchrun did not make.
    """
    dist: Any = sys.modules.get("torch.distributed")
    if dist is not None and dist.is_available() and dist.is_initialized():
        rank, count = dist.get_rank(), dist.get_world_size()
        yield Team(rank, count, _setting("LOCAL_RANK", rank), torch.device(device)) if count > 1 else ALONE
        return
    if _setting("WORLD_SIZE", 1) == 1:
        yield ALONE
        return
    local_rank = _check_device(device)
    with torch.cuda.device(local_rank) if device == "cuda" else nullcontext(), _group(device, local_rank) as team:
        yield team


@contextmanager
def _group(device: str, local_rank: int) -> Iterator[Team]:
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    try:
        store, rank, count = next(rendezvous("env://", timeout=PATIENCE))
    except ValueError as error:
        raise ConfigError(
            f"WORLD_SIZE={os.environ['WORLD_SIZE']} speaks of several processes, but {error}. "
            "Start them by torchrun, or unset WORLD_SIZE."
        ) from error
    # Torch forgets that it has used a store: the names of a second group would be those of the first.
    store = PrefixStore(f"qvit/{store.add(f'groups of {rank}', 1)}", store)
    place = torch.device("cuda", local_rank) if device == "cuda" else torch.device(device)
    options: dict[str, Any] = {"device_id": place} if device == "cuda" else {}
    backend = "nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=PATIENCE, **options)
    team = Team(rank, count, local_rank, place)
    try:
        yield team
        team.collect(None)  # no process leaves while another one is still listening
    finally:
        dist.destroy_process_group()


def _check_device(device: str) -> int:
    """Raise `ConfigError` for a device that the processes of this machine cannot share; returns the local rank."""
    local_rank = _setting("LOCAL_RANK", _setting("RANK", 0))
    here = _setting("LOCAL_WORLD_SIZE", _setting("WORLD_SIZE", 1))
    kind, number, _ = device.partition(":")
    if kind not in ("cpu", "cuda"):
        raise ConfigError(f"Several processes compute on cpu or cuda, not on '{device}'; use one process.")
    if kind == "cuda" and number:
        raise ConfigError(f"device='{device}' is one GPU for {here} processes; use device=cuda, and each has its own.")
    if kind == "cuda" and here > torch.cuda.device_count():
        raise ConfigError(
            f"{here} processes with a GPU each were asked for, and this machine has {torch.cuda.device_count()}; "
            f"use --nproc-per-node {max(1, torch.cuda.device_count())}, or device=cpu."
        )
    return local_rank


def _setting(name: str, default: int) -> int:
    """Return a whole number that torchrun has put into the environment."""
    text = os.environ.get(name) or str(default)
    try:
        return int(text)
    except ValueError as error:
        raise ConfigError(f"The environment has {name}={text}, expected a whole number as torchrun sets.") from error


@contextmanager
def _exchanging() -> Iterator[None]:
    """Raise `RunError` with the most likely cause if an exchange inside the block fails."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        raise RunError(
            f"The processes of this run lost each other ({reason}). One has ended: see what it said; an unfinished run "
            "goes on with --resume."
        ) from error


def _attempt(work: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return work(), None
    except Exception as error:
        return None, error


def _raise(own: Exception | None, errors: Sequence[str | None]) -> None:
    """Raise this process's own error, or else the first of the others'."""
    if own is not None:
        raise own
    for error in errors:
        if error is not None:
            raise RunError(error)
