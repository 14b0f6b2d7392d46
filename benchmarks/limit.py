"""What share of a core's peak the arithmetic of training reaches, of a model alone and of stacks.

    python benchmarks/limit.py [--models qvit_4q2h,qvit_8q2h,vit_4q2h,qvit_4q2h:2] [--stacks 8,15] [--seconds 3]
    python benchmarks/limit.py --figure OUT.svg --json OUT.json [--stacks 1,2,5,15,50] [--batches 8,32,64,256]

`qvit_4q2h:2` is qvit_4q2h with circuits of two layers (`--set n_layers=2`).

The arithmetic of a training step, per image. A multiplication, an addition, a subtraction, a division and a square root
count as one operation each, so that a fused multiply-add is two. Counted is what the formulas of the model take if
nothing is computed twice: what the forward pass has computed, the backward pass has at hand. (Our kernels compute some
of it again, since storing it would take longer. That is not counted.) Copies, comparisons, choices, whole numbers and
random numbers do not count, nor what is done once for a batch, such as cosines of weights, but for the optimiser.
Functions count as the polynomials that the library evaluates in float32: 2ˣ takes 3 to take the whole part off and 5
fused steps (13 in all), cosine and sine of an angle together 33 (7 to take multiples of π off, a square, twice 6 fused
steps, a product), GELU 36 (x² times a constant: 2, 2ˣ: 13, t = 1/(1 + s·x): 3, a polynomial of degree 8 in t: 15, three
products and sums to put them together: 3) and its derivative 4 more.

With n tokens of d features, patches of p numbers, h heads of width w = d/h, f hidden features, k classes:

- pixels: mean and deviation, 2 a pixel;
- embedding: n·(2·p·d + d), the bias being part of the positions; backward, to the weights only, n·(2·p·d + d);
- a norm: n·(7·d + 3): the mean d, moved tokens d, variance 2·d, its root and reciprocal 3, their product d, weight and
  bias 2·d; backward n·(11·d + 2): to weight and bias 3·d, through the weight d, two means 3·d + 2, the slope 4·d;
- a dense layer from i to o features: n·2·i·o; backward n·(4·i·o + o);
- circuits: 33 for each feature of a token, then for each of 3·h circuits those of the `heisenberg` engine, which takes
  the fewest for the circuits here: for each angle with an input 6 (cos and sin of a sum), for each term of a node a
  multiplication unless it is a cosine or sine alone, and an addition between two terms; backward 4 for each such
  multiplication (two products, two sums), 1 for each term without, for each angle 2·products and 1 sum (3), of which
  those of inputs are added up (1);
- attention: for each of h·n² scores 2·w, 2ˣ 13, its sum 1, 2·w; h·n·(2·w + 1) to scale queries and results; backward
  8·w + 2 for each (slopes of weights 2·w, of scores 2, of queries, keys and values 2·w each), h·n·4·w once a query;
- GELU: n·f·36, backward n·f·5; both sums with what came in: n·d each way;
- the mean of tokens n·d, backward n·d; the head 2·d·k, backward 4·d·k; softmax and its logarithm 16·k, backward 2·k;
- clipping and AdamW: 17 for each weight (the norm 2, clipping 1, moments 7, the step 7) and step.

Peak: the largest of three, measured next to what is compared with it: fused multiply-adds of vectors in 6 and in 12
independent chains, in registers alone, and torch's product of two 512 × 512 matrices. Steps are those of `fit` and
`fit_many` on RetinaMNIST, augmentation, loading and optimiser included, validation not. Both are measured in turn, in
several rounds after a warm-up; the share is the median of the rounds' shares.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from qvit.cpu.bundles import add_products, load_rows, repeated, store_rows
from qvit.cpu.compiled import jit
from qvit.cpu.memory import reuse_memory
from qvit.cpu.vectors import lanes, load
from qvit.data.arrays import Dataset, Split, load_dataset
from qvit.models.projections import Linear, Quantum
from qvit.models.vit import ViTConfig
from qvit.models.zoo import build_without_numbers, count_parameters, model_config
from qvit.quantum.ansatz import build_circuit, get_ansatz
from qvit.quantum.engines.heisenberg import ONE, ZERO, heisenberg_plan
from qvit.quantum.program import compile_circuit
from qvit.report.drawing import GREY, MARKERS, SETTINGS, WIDTH, write_picture
from qvit.training.config import TrainConfig
from qvit.training.distributed import ALONE
from qvit.training.loop import train_epoch
from qvit.training.run import build_model
from qvit.training.state import Member
from qvit.training.surroundings import surroundings
from qvit.training.together import Alone, Stack, Together

POWER, COS_SIN, GELU, ADAMW = 13, 33, 36, 17
MODELS = "qvit_4q2h,qvit_8q2h,vit_4q2h,qvit_4q2h:2"
ROUNDS = 200_000 // 12
Both = tuple[float, float]  # operations forward and backward


def configuration(name: str) -> ViTConfig:
    """Return the configuration of a model for RetinaMNIST; `name:2` is one with circuits of two layers."""
    name, _, layers = name.partition(":")
    config: Any = model_config(name, in_chans=3, num_classes=5, img_size=28)
    return dataclasses.replace(config, projection=Quantum(n_layers=int(layers))) if layers else config


def circuit(projection: Quantum, width: int) -> Both:
    """Return the operations of one circuit for one token, cosines and sines of inputs left out."""
    plan = heisenberg_plan(compile_circuit(build_circuit(get_ansatz(projection.ansatz), width, projection.n_layers)))
    factors = [place for node in plan.nodes for place in (node.along, node.across) if place != ZERO]
    terms, products = len(factors), sum(place != ONE for place in factors)
    angles, moving = plan.angles.weights.matrix.rows, len(plan.angles.dynamic)
    forward = 6 * moving + products + terms - len(plan.nodes)
    return forward, 4 * products + (terms - products) + 4 * angles + moving


def projections(config: ViTConfig) -> Both:
    """Return the operations of what turns a block's tokens into queries, keys and values."""
    n, d, h = config.tokens, config.dim, config.heads
    if isinstance(config.projection, Linear):
        return n * 6.0 * d * d, n * 3.0 * (4 * d * d + d)
    forward, backward = circuit(config.projection, d // h)
    return n * (COS_SIN * d + 3 * h * forward), n * 3.0 * h * backward


def arithmetic(config: ViTConfig, batch: int) -> dict[str, Both]:
    """Return the operations of each part of a training step, per image of a batch; see the module's docstring."""
    n, d, h, f, k = config.tokens, config.dim, config.heads, config.mlp_dim, config.num_classes
    w, p, scores = d // h, config.in_chans * config.patch**2, h * n * n
    norm = n * (7.0 * d + 3), n * (11.0 * d + 2)

    def dense(i: int, o: int) -> Both:
        return n * 2.0 * i * o, n * (4.0 * i * o + o)

    block = {
        "norms": _times(2, norm),
        "projections": projections(config),
        "attention": (scores * (4.0 * w + POWER + 1) + h * n * (2 * w + 1), scores * (8.0 * w + 2) + h * n * 4 * w),
        "dense layers": _sum(dense(d, d), dense(d, f), dense(f, d)),
        "GELU and sums": (n * (GELU * f + 2.0 * d), n * (5.0 * f + 2 * d)),
    }
    parts = {part: _times(config.depth, each) for part, each in block.items()}
    parts["norms"] = _sum(parts["norms"], norm)
    weights = count_parameters(build_without_numbers(config))
    return {
        "embedding": (2.0 * n * p + n * (2 * p * d + d), n * (2.0 * p * d + d)),
        **parts,
        "head and loss": (n * d + 2.0 * d * k + (POWER + 3) * k, n * d + 4.0 * d * k + 2 * k),
        "AdamW": (0.0, ADAMW * weights / batch),
    }


def _times(count: int, each: Both) -> Both:
    return count * each[0], count * each[1]


def _sum(*parts: Both) -> Both:
    return sum(part[0] for part in parts), sum(part[1] for part in parts)


def operations(config: ViTConfig, batch: int) -> float:
    """Return the operations of a training step, per image."""
    return sum(_sum(*arithmetic(config, batch).values()))


@jit
def _chains(shape: Any, rows: Any, rounds: Any) -> None:
    """Multiply and add in as many independent chains as `shape` has numbers."""
    factor: Any = load(rows, 0)  # type: ignore[call-arg]
    chains, starts = load_rows(shape, rows, 1), repeated(shape, factor)
    for _ in range(rounds):
        chains = add_products(starts, factor, chains)
    store_rows(rows, 1, chains)


def peak() -> float:
    """Return the most operations a second that this core does now."""
    rows, square = np.full(13 * lanes(4), 0.5, np.float32), torch.rand(512, 512)
    runs: list[tuple[float, Callable[[], Any]]] = [(2.0 * 512**3, lambda: square @ square)]
    for count in (6, 12):
        chains = functools.partial(_chains, (0,) * count, rows, ROUNDS)
        runs.append((2.0 * count * lanes(4) * ROUNDS, chains))
    return max(work / _seconds(run) for work, run in runs for _ in range(5))


def _seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


class Steps:
    """Training steps of a model, or of a stack, whose images are the first of RetinaMNIST's."""

    def __init__(self, data: Dataset, name: str, stack: int, batch: int, *, alone: bool) -> None:
        steps = max(1, min(len(data.train) // batch, max(2, 20_000 // (stack * batch))))
        few = Split(*(array[: steps * batch] for array in (data.train.images, data.train.labels)))
        data, config = dataclasses.replace(data, train=few), configuration(name)
        options = TrainConfig(batch_size=batch, threads=1)
        members = [Member(data, options, seed) for seed in range(stack)]
        models: list[Any] = [build_model(config, data, seed=seed) for seed in range(stack)]
        self.images, self.options = stack * steps * batch, options
        self.trained: Together = Alone(models[0], members[0], ALONE) if alone else Stack(models, members)
        self.rate()

    def rate(self) -> float:
        """Train for an epoch; return how many images it took a second."""
        with surroundings(self.options.threads):
            return self.images / _seconds(lambda: train_epoch(self.trained))


def shares(steps: Steps, work: float, seconds: float) -> tuple[float, float]:
    """Return the median share of the peak, and of images a second."""
    found: list[tuple[float, float]] = []
    end = time.perf_counter() + seconds
    while not found or time.perf_counter() < end:
        rate = steps.rate()
        found.append((rate * work / peak(), rate))
    return median(share for share, _ in found), median(rate for _, rate in found)


def report(names: list[str], stacks: list[int], batch: int, seconds: float) -> None:
    """Print the arithmetic of each model, and the shares that it reaches."""
    data = load_dataset("retinamnist")
    for name in names:
        parts = arithmetic(configuration(name), batch)
        work = sum(_sum(*parts.values()))
        told = ", ".join(f"{part} {(ahead + back) / work:.0%}" for part, (ahead, back) in parts.items())
        print(f"{name}: {work / 1e3:.0f} thousand operations an image ({told})", flush=True)
        for stack in (0, *stacks):
            share, rate = shares(Steps(data, name, max(1, stack), batch, alone=not stack), work, seconds)
            what = f"a stack of {stack}" if stack else "alone"
            print(f"    {what:14} {share:5.1%} of the limit, {rate:9,.0f} images/s", flush=True)


def work_on_orders() -> None:
    """Measure what each line of the standard input asks for; answer with images a second and the peak."""
    data = load_dataset("retinamnist")
    for line in sys.stdin:
        name, stack, batch, seconds = json.loads(line)
        steps = Steps(data, name, stack, batch, alone=stack == 1)
        print("ready", flush=True)
        sys.stdin.readline()
        rates: list[float] = []
        end = time.perf_counter() + seconds
        while not rates or time.perf_counter() < end:
            rates.append(steps.rate())
        print(json.dumps([median(rates), peak()]), flush=True)


def points(names: list[str], stacks: list[int], batches: list[int], seconds: float) -> list[dict[str, Any]]:
    """Return images a second and the limit, of one process and of two at once, for all sizes of stacks and batches."""
    command = [sys.executable, __file__, "--work"]
    found: list[dict[str, Any]] = []
    workers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for name, stack, batch, cores in itertools.product(names, stacks, batches, (1, 2)):
        asked = workers[:cores]
        _tell(asked, json.dumps([name, stack, batch, seconds]))
        _answers(asked)  # all are ready
        _tell(asked, "go")
        rate, most = (sum(each) for each in zip(*map(json.loads, _answers(asked)), strict=True))
        point = {"model": name, "stack": stack, "batch": batch, "cores": cores, "images_per_second": rate}
        found.append(point | {"limit": most / operations(configuration(name), batch)})
        print(json.dumps(found[-1]), flush=True)
    for worker in workers:
        worker.communicate()
    return found


def _tell(workers: list[Any], line: str) -> None:
    for worker in workers:
        print(line, file=worker.stdin, flush=True)


def _answers(workers: list[Any]) -> list[str]:
    return [worker.stdout.readline() for worker in workers]


def draw(found: list[dict[str, Any]], path: Path) -> None:
    """Draw images a second against the size of a stack: a panel for each model, a colour for each batch."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    names, batches = ([*dict.fromkeys(point[key] for point in found)] for key in ("model", "batch"))
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(2 * WIDTH, 3.1 * -(-len(names) // 2) + 0.6), layout="constrained")
        panels = figure.subplots(-(-len(names) // 2), 2, sharex=True, sharey=True, squeeze=False).flat
        for axes, name in zip(panels, names, strict=False):
            for cores, dashes in ((1, "-"), (2, "--")):
                own = [point for point in found if point["model"] == name and point["cores"] == cores]
                limit = median(point["limit"] for point in own)
                axes.axhline(limit, color=GREY, ls=dashes, lw=1)
                of = f"limit, {cores} core{'s' * (cores > 1)}"
                axes.annotate(of, (1, limit), (0, -2), textcoords="offset points", va="top", color=GREY, fontsize=7)
                for place, batch in enumerate(batches):
                    line = [(each["stack"], each["images_per_second"]) for each in own if each["batch"] == batch]
                    of = f"batch {batch}" + (", two processes" if cores > 1 else "")
                    style: Any = {"marker": MARKERS[place % len(MARKERS)], "ms": 4, "lw": 1.2}
                    axes.plot(*zip(*line, strict=True), color=f"C{place}", ls=dashes, label=of, **style)
            stacks = sorted({point["stack"] for point in found})
            axes.set(title=name.replace(":2", ", two layers"), xscale="log", yscale="log")
            axes.set_xticks(stacks, map(str, stacks))
            axes.set(xlabel="models in a stack (1: alone)", ylabel="images a second")
            axes.minorticks_off()
        for axes in figure.axes:
            axes.label_outer()
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(batches))
    write_picture(figure, path)


def main() -> None:
    """Measure and print, or draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--stacks", help="8,15; for a figure 1,2,5,15,50")
    parser.add_argument("--batches", help="64; for a figure 8,32,64,256")
    parser.add_argument("--seconds", type=float, help="for each point: 5; for a figure 0.7")
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    reuse_memory()
    if asked.work:
        work_on_orders()
        return
    drawn = asked.figure is not None or asked.json is not None
    names = asked.models.split(",")
    stacks, batches = (
        [int(number) for number in (given or usual).split(",")]
        for given, usual in (
            (asked.stacks, "1,2,5,15,50" if drawn else "8,15"),
            (asked.batches, "8,32,64,256" if drawn else "64"),
        )
    )
    if not drawn:
        for batch in batches:
            report(names, stacks, batch, asked.seconds or 5.0)
        return
    found = points(names, stacks, batches, asked.seconds or 0.7)
    if asked.json is not None:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")
    if asked.figure is not None:
        draw(found, asked.figure)


if __name__ == "__main__":
    main()
