"""Distillation losses: pure functions of a student's and a teacher's outputs that return one value per example.

For a stack of students they return the values of each; the teacher's outputs are then of all or of each `(*t …)`.

The student comes first, the teacher second. KL divergences sum over classes and average over separate questions, such
as labels and thresholds; squared differences average over columns. Divergences of answers softened by a temperature T
carry Hinton's factor T², which keeps the size of their gradients whatever T is.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def soft_targets(
    student: Float[Tensor, "*m b c"], teacher: Float[Tensor, "*t b c"], *, temperature: float
) -> Float[Tensor, "*m b"]:
    """Return the KL divergence of softened classes, from logits: T²·KL(softmax(t/T) ‖ softmax(s/T)), in nats.

    The gradient with respect to the student's logits is T·(softmax(s/T) − softmax(t/T)); as T grows, it tends
    to (s − t)/C with the mean over classes taken off. Source: Hinton et al. 2015 (arXiv:1503.02531).
    """
    divergences = _divergence((student / temperature).log_softmax(dim=-1), (teacher / temperature).log_softmax(dim=-1))
    return temperature**2 * divergences


def binary_soft_targets(
    student: Float[Tensor, "*m b k"], teacher: Float[Tensor, "*t b k"], *, temperature: float
) -> Float[Tensor, "*m b"]:
    """Return the KL divergence of softened answers from logits, averaged over labels, times T², in nats.

    Per label T²·KL(Bernoulli(σ(t/T)) ‖ Bernoulli(σ(s/T))): `soft_targets` of two classes with the logits z and 0.
    """
    divergences = _divergence(_log_answers(student / temperature), _log_answers(teacher / temperature))
    return temperature**2 * divergences.mean(dim=-1)


def ordinal_soft_targets(
    student: Float[Tensor, "*m b c"], teacher: Float[Tensor, "*t b c"], *, temperature: float
) -> Float[Tensor, "*m b"]:
    """Return T² times the KL divergence of softened "is the grade above k?", averaged over thresholds k, in nats.

    C ordered classes, at least two, have C − 1 thresholds. Probability further from the teacher's grade costs more,
    whereas `soft_targets` ignores how far it is. For two classes both losses are the same.
    """
    divergences = _divergence(_log_thresholds(student / temperature), _log_thresholds(teacher / temperature))
    return temperature**2 * divergences.mean(dim=-1)


def logit_mse(student: Float[Tensor, "*m b c"], teacher: Float[Tensor, "*t b c"]) -> Float[Tensor, "*m b"]:
    """Return the squared difference of logits, averaged over classes.

    Unlike the divergences, it penalises an offset that all classes share. Sources: Ba & Caruana 2014 (arXiv:1312.6184),
    Kim et al. 2021 (arXiv:2105.08919).
    """
    return (student - teacher).square().mean(dim=-1)


def decoupled(
    student: Float[Tensor, "*m b c"],
    teacher: Float[Tensor, "*t b c"],
    target: Int[Tensor, "*t b"],
    *,
    temperature: float,
    beta: float,
) -> Float[Tensor, "*m b"]:
    """Return the decoupled distillation loss of logits and true classes: T²·(TCKD + β·NCKD), in nats.

    TCKD is the KL divergence of (target, all others), NCKD that of the others among themselves: 0 if there is only one.
    If β is the teacher's softened 1 − p(target) of each example, this is `soft_targets`. There must be at least two
    classes.
    Source: Zhao et al. 2022 (arXiv:2203.08679), with their α, the weight of TCKD, at 1.
    """
    student_target, student_others = _log_decoupled(student / temperature, target)
    teacher_target, teacher_others = _log_decoupled(teacher / temperature, target)
    tckd, nckd = _divergence(student_target, teacher_target), _divergence(student_others, teacher_others)
    return temperature**2 * (tckd + beta * nckd)


def feature_distance(student: Float[Tensor, "*m b f"], teacher: Float[Tensor, "*t b f"]) -> Float[Tensor, "*m b"]:
    """Return the squared difference of features, averaged over features; the student's have the teacher's width.

    Source: FitNets, Romero et al. 2015 (arXiv:1412.6550); the caller owns the learned map.
    """
    return (student - teacher).square().mean(dim=-1)


def attention_distance(student: Float[Tensor, "*m b y x"], teacher: Float[Tensor, "*t b v u"]) -> Float[Tensor, "*m b"]:
    """Return the squared L2 distance of attention maps, each flattened and divided by its L2 norm; from 0 to 4.

    A teacher's map of another size is first averaged over the cells of the student's map, which overlap where the sizes
    do not divide. A map of zeros stays zero and gets no gradient.
    Source: Zagoruyko & Komodakis 2017 (arXiv:1612.03928), eq. 2 with p = 2, but squared, so that it has a gradient
    where the maps agree, and without their weight β/2.
    """
    maps = teacher.flatten(0, -3)[:, None]
    resized = F.interpolate(maps, size=student.shape[-2:], mode="area").reshape(
        *teacher.shape[:-2], *student.shape[-2:]
    )
    return (_direction(student) - _direction(resized)).square().sum(dim=-1)


def _divergence(student: Float[Tensor, "... c"], teacher: Float[Tensor, "... c"]) -> Float[Tensor, "..."]:
    """Return KL(teacher ‖ student) of log-probabilities; a probability that underflows adds 0, not NaN."""
    return (teacher.exp() * (teacher - student)).sum(dim=-1)


def _log_answers(logits: Float[Tensor, "*m b k"]) -> Float[Tensor, "*m b k 2"]:
    """Return log P(yes) and log P(no) of each label; 1 − σ would lose small probabilities."""
    return torch.stack([F.logsigmoid(logits), F.logsigmoid(-logits)], dim=-1)


def _log_thresholds(logits: Float[Tensor, "*m b c"]) -> Float[Tensor, "*m b c-1 2"]:
    """Return log P(grade > k) and log P(grade ≤ k) for each threshold k.

    There is one logsumexp per threshold, as grades are few: the gradient of `logcumsumexp` subtracts and adds back
    values of the size of the logits, which in float32 gives errors of 4e-4 at logits of 1e4 and is entirely wrong from
    1e8.
    """
    chances = logits.log_softmax(dim=-1)
    above = [chances[..., k:].logsumexp(dim=-1) for k in range(1, logits.shape[-1])]
    below = [chances[..., :k].logsumexp(dim=-1) for k in range(1, logits.shape[-1])]
    return torch.stack([torch.stack(above, dim=-1), torch.stack(below, dim=-1)], dim=-1)


def _log_decoupled(
    logits: Float[Tensor, "*m b c"], target: Int[Tensor, "*t b"]
) -> tuple[Float[Tensor, "*m b 2"], Float[Tensor, "*m b c-1"]]:
    """Return log-probabilities of (target, all others), and of the others given that the class is not the target."""
    target = target.long().expand(logits.shape[:-1])[..., None]
    others = torch.arange(logits.shape[-1] - 1, device=logits.device)
    others = others + (others >= target)  # every class but the target, which a mask of −1000 would not quite leave out
    chances = logits.log_softmax(dim=-1)
    rest = chances.gather(-1, others).logsumexp(dim=-1, keepdim=True)
    return torch.cat([chances.gather(-1, target), rest], dim=-1), logits.gather(-1, others).log_softmax(dim=-1)


def _direction(maps: Float[Tensor, "*m b y x"]) -> Float[Tensor, "*m b y*x"]:
    """Flatten maps and divide each by its L2 norm."""
    flat = maps.flatten(start_dim=-2)
    some = torch.linalg.vector_norm(flat.detach(), dim=-1, keepdim=True) > 0
    # Of zeros no norm is taken at all: its second derivative there is NaN, which no `where` behind it would undo.
    norms = torch.linalg.vector_norm(torch.where(some, flat, 1.0), dim=-1, keepdim=True)
    # A small ε in place of ∞ would hand a map of zeros a gradient of 1/ε, which drowns all others.
    return flat / torch.where(some, norms, torch.inf)
