"""The texts of studies."""

from pathlib import Path
from random import Random

from fuzz.harness import Kind
from fuzz.yaml_texts import PIECES, mutated
from qvit.study.reading import parse_study

TEXTS = (
    "title: Ours\ndatasets: [phantom, mine.npz]\nmodels:\n  - {kind: [qvit, vit], qubits: [4, 8], heads: 2}\n"
    "  - cosine_4q2h\nseeds: 3\noptions: {epochs: 10, lr: 0.01}\n",
    "datasets: phantom\nmodels: {kind: qvit, layers: [1, 2], options: {ansatz: rx_ring}, label: null}\nseeds: [1, 5]\n"
    "overrides:\n  - {where: {dataset: phantom, model: 'qvit_*'}, set: {lr: 0.003}}\n",
    "datasets: phantom\nmodels: [vit_4q1h, {name: qvit_4q1h, label: ours}]\nseeds: 2\ndescription: |\n  Of two\n"
    "teachers:\n  strong:\n    - {arch: vit_4q2h, epochs: 3, seeds: 2}\n    - {arch: resnet18, width: 0.5}\n"
    "regimes:\n  scratch:\n  kd: {teacher: strong, temperature: 3, pretrain: {epochs: 3}}\n",
)
WORDS = (
    *("seeds: 1000000000", "seeds: 1e18", "yes", "1_000", "[1, 1]", "{kind: vit}", "qvit_4q2h", "resnet81", "-1", "0"),
    *("99999", "null", "{null: 1}", "5", "{}", "[]", "''", "'*'", "[[!a-", "~x/y.npz", "a/../mine.npz", "a\nb"),
    *("teacher: strong", "datasets", "models", "where", "set", "regimes: [scratch, kd]", "options: {size: 64}"),
)
PIECES_OF_STUDIES = (*PIECES, *(word.encode() for word in WORDS))


def _valid(random: Random) -> bytes:
    return random.choice(TEXTS).encode()


def _mutate(random: Random, content: bytes) -> bytes:
    return mutated(random, content, PIECES_OF_STUDIES)


def _attempt(content: bytes, folder: Path) -> None:
    parse_study(content.decode(errors="surrogateescape"), name="fuzz", folder=folder)


KIND = Kind("studies", 20_000, _valid, _mutate, _attempt)
