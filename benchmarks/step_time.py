"""Time of a training step: quantum models against their classical twins, in the same run.

    python benchmarks/step_time.py [--batch 64] [--repeats 200]

A step is forward, loss, backward, gradient clipping and AdamW, on random 28×28 RGB images, one thread. The models
take turns step by step, so that whatever else happens on the machine hits all alike; the figure is the median.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from qvit.models import count_parameters, create_model
from qvit.training.loop import TrainConfig, make_optimizer

PAIRS = (("qvit_4q2h", "vit_4q2h"), ("qvit_8q1h", "vit_8q1h"), ("qvit_8q2h", "vit_8q2h"))


def make_step(name: str, batch: int) -> Callable[[], None]:
    """Return a function that trains a fresh model for one step."""
    model = create_model(name, num_classes=5)
    optimizer = make_optimizer(model, TrainConfig())
    images = torch.randint(0, 256, (batch, 3, 28, 28), dtype=torch.uint8)
    labels = torch.randint(0, 5, (batch,))

    def step() -> None:
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def median_milliseconds(steps: list[Callable[[], None]], repeats: int) -> list[float]:
    """Return the median time of each function, after warm-up, measured in turn."""
    times: list[list[float]] = [[] for _ in steps]
    for repeat in range(repeats + 20):
        for place, step in enumerate(steps):
            start = time.perf_counter()
            step()
            if repeat >= 20:
                times[place].append(1e3 * (time.perf_counter() - start))
    return [statistics.median(series) for series in times]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=200)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{'quantum':12} {'ms':>7}   {'classical':12} {'ms':>7}   ratio")
    for quantum, classical in PAIRS:
        steps = [make_step(name, arguments.batch) for name in (quantum, classical)]
        ours, theirs = median_milliseconds(steps, arguments.repeats)
        print(f"{quantum:12} {ours:7.2f}   {classical:12} {theirs:7.2f}   {ours / theirs:.2f}")
    counts = ", ".join(f"{name} {count_parameters(create_model(name, num_classes=5))}" for name in PAIRS[0])
    print(f"parameters: {counts}")


if __name__ == "__main__":
    main()
