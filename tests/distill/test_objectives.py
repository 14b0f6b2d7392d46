"""Distillation losses against loops, scipy and torch, in their limits, and where exponentials underflow."""

import math
from collections.abc import Callable
from inspect import isfunction, signature

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, rel_entr, softmax
from scipy.stats import entropy
from torch import Tensor

from qvit.distill import objectives
from qvit.distill.objectives import (
    attention_distance,
    binary_soft_targets,
    decoupled,
    feature_distance,
    logit_mse,
    ordinal_soft_targets,
    soft_targets,
)

B, C, BETA = 7, 5, 3.0
Array = np.ndarray
# student, teacher, true classes and temperature; not every loss uses all of them
Loss = Callable[[Tensor, Tensor, Tensor, float], Tensor]


def _soft(s: Tensor, t: Tensor, y: Tensor, temperature: float) -> Tensor:
    return soft_targets(s, t, temperature=temperature)


def _binary(s: Tensor, t: Tensor, y: Tensor, temperature: float) -> Tensor:
    return binary_soft_targets(s, t, temperature=temperature)


def _ordinal(s: Tensor, t: Tensor, y: Tensor, temperature: float) -> Tensor:
    return ordinal_soft_targets(s, t, temperature=temperature)


def _decoupled(s: Tensor, t: Tensor, y: Tensor, temperature: float) -> Tensor:
    return decoupled(s, t, y, temperature=temperature, beta=BETA)


def _mse(s: Tensor, t: Tensor, y: Tensor, temperature: float) -> Tensor:
    return logit_mse(s, t)


def _features(s: Tensor, t: Tensor, y: Tensor, temperature: float) -> Tensor:
    return feature_distance(s, t)


def _attention(s: Tensor, t: Tensor, y: Tensor, temperature: float) -> Tensor:
    return attention_distance(s[..., None], t[..., None])


def slow_soft(s: Array, t: Array, y: int, temperature: float) -> float:
    return temperature**2 * entropy(softmax(t / temperature), softmax(s / temperature))


def slow_bernoulli(p: float, q: float) -> float:
    return rel_entr(p, q) + rel_entr(1 - p, 1 - q)


def slow_binary(s: Array, t: Array, y: int, temperature: float) -> float:
    pairs = zip(expit(t / temperature), expit(s / temperature), strict=True)
    return temperature**2 * sum(slow_bernoulli(p, q) for p, q in pairs) / len(s)


def slow_ordinal(s: Array, t: Array, y: int, temperature: float) -> float:
    p, q = softmax(t / temperature), softmax(s / temperature)
    total = 0.0
    for threshold in range(len(s) - 1):
        total += slow_bernoulli(sum(p[threshold + 1 :]), sum(q[threshold + 1 :]))
    return temperature**2 * total / (len(s) - 1)


def slow_decoupled(s: Array, t: Array, y: int, temperature: float) -> float:
    p, q = softmax(t / temperature), softmax(s / temperature)
    others = [k for k in range(len(s)) if k != y]
    nckd = sum(rel_entr(p[k] / (1 - p[y]), q[k] / (1 - q[y])) for k in others)
    return temperature**2 * (slow_bernoulli(p[y], q[y]) + BETA * nckd)


def slow_mse(s: Array, t: Array, y: int, temperature: float) -> float:
    return sum((a - b) ** 2 for a, b in zip(s, t, strict=True)) / len(s)


def slow_attention(s: Array, t: Array, y: int, temperature: float) -> float:
    return 2 - 2 * sum(s * t) / math.sqrt(sum(s * s) * sum(t * t))


SLOW: dict[Loss, Callable[..., float]] = {
    _soft: slow_soft,
    _binary: slow_binary,
    _ordinal: slow_ordinal,
    _decoupled: slow_decoupled,
    _mse: slow_mse,
    _features: slow_mse,
    _attention: slow_attention,
}
NAMED = {
    "soft_targets": "_soft",
    "binary_soft_targets": "_binary",
    "ordinal_soft_targets": "_ordinal",
    "decoupled": "_decoupled",
    "logit_mse": "_mse",
    "feature_distance": "_features",
    "attention_distance": "_attention",
}
EVERY: list[Loss] = list(SLOW)
SOFTENED: list[Loss] = [_soft, _binary, _ordinal, _decoupled]
SOFTMAXED: list[Loss] = [_soft, _ordinal, _decoupled]


def _data(
    b: int = B, c: int = C, *, seed: int = 0, scale: float = 2.0, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (scale * torch.randn(2, b, c, generator=generator, dtype=torch.float64)).to(dtype)
    return student, teacher, torch.randint(c, (b,), generator=generator)


def _gradient(loss: Loss, s: Tensor, t: Tensor, y: Tensor, temperature: float) -> Tensor:
    s = s.clone().requires_grad_()
    return torch.autograd.grad(loss(s, t, y, temperature).sum(), s)[0]


# Values


@pytest.mark.parametrize("loss", EVERY)
@pytest.mark.parametrize("temperature", [1.0, 2.5, 4])
@pytest.mark.parametrize("c", [2, 5])
def test_equals_a_loop(loss: Loss, temperature: float, c: int) -> None:
    s, t, y = _data(c=c)
    found = loss(s, t, y, temperature)
    rows = zip(s.numpy(), t.numpy(), y.tolist(), strict=True)
    expected = [SLOW[loss](*row, temperature) for row in rows]
    assert found.shape == (B,)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10, atol=1e-12)


def test_soft_targets_by_hand() -> None:
    teacher, student = torch.tensor([[math.log(3), 0.0]]), torch.zeros(1, 2)
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert soft_targets(student, teacher, temperature=1.0).item() == pytest.approx(expected, rel=1e-6)
    # a temperature of 2 undoes doubled logits, which leaves the factor T²
    assert soft_targets(student, 2 * teacher, temperature=2.0).item() == pytest.approx(4 * expected, rel=1e-6)
    # the divergence is not symmetric: expectations are the teacher's
    swapped = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert soft_targets(teacher, student, temperature=1.0).item() == pytest.approx(swapped, rel=1e-6)


def test_ordinal_by_hand() -> None:
    teacher = torch.tensor([[1.0, 1.0, 2.0]]).log()  # above grade 0 with 3/4, above grade 1 with 1/2
    student = torch.tensor([[2.0, 1.0, 1.0]]).log()  # 1/2 and 1/4
    first = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    second = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    expected = (first + second) / 2
    assert ordinal_soft_targets(student, teacher, temperature=1.0).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_agrees_with_the_losses_of_torch(temperature: float) -> None:
    s, t, _ = _data()
    logs, chances = (s / temperature).log_softmax(1), (t / temperature).softmax(1)
    expected = temperature**2 * F.kl_div(logs, chances, reduction="none").sum(1)
    torch.testing.assert_close(soft_targets(s, t, temperature=temperature), expected)
    answers = (t / temperature).sigmoid()
    crossed = F.binary_cross_entropy_with_logits(s / temperature, answers, reduction="none")
    own = F.binary_cross_entropy_with_logits(t / temperature, answers, reduction="none")
    expected = temperature**2 * (crossed - own).mean(1)
    torch.testing.assert_close(binary_soft_targets(s, t, temperature=temperature), expected)


def test_for_two_classes_all_divergences_are_one() -> None:
    s, t, y = _data(c=2)
    expected = soft_targets(s, t, temperature=2.0)
    torch.testing.assert_close(ordinal_soft_targets(s, t, temperature=2.0), expected)
    gap_s, gap_t = s[:, 1:] - s[:, :1], t[:, 1:] - t[:, :1]
    torch.testing.assert_close(binary_soft_targets(gap_s, gap_t, temperature=2.0), expected)
    for beta in (0.0, 8.0):  # a single other class has nothing to tell
        torch.testing.assert_close(decoupled(s, t, y, temperature=2.0, beta=beta), expected)


@pytest.mark.parametrize("loss", EVERY)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_a_student_equal_to_its_teacher_costs_nothing(loss: Loss, dtype: torch.dtype, tolerance: float) -> None:
    _, t, y = _data(scale=5.0, dtype=dtype)
    assert loss(t, t.clone(), y, 2.0).tolist() == [0.0] * B
    assert _gradient(loss, t, t, y, 2.0).abs().max() <= tolerance


@pytest.mark.parametrize("loss", EVERY)
@given(
    b=st.sampled_from([1, 2, 3, 11]),
    c=st.sampled_from([2, 3, 5, 7, 13]),
    seed=st.integers(0, 2**20),
    scale=st.floats(1e-3, 1e3),
    temperature=st.floats(0.5, 20.0),
)
@settings(max_examples=25, deadline=None)
def test_never_negative(loss: Loss, b: int, c: int, seed: int, scale: float, temperature: float) -> None:
    s, t, y = _data(b, c, seed=seed, scale=scale)
    assert loss(s, t, y, temperature).min() >= -1e-14 * temperature**2


def test_every_loss_and_option_is_tested() -> None:
    """Each by a loop of its own, and each option of each as one that bites."""
    public = {name: one for name, one in vars(objectives).items() if isfunction(one) and not name.startswith("_")}
    assert NAMED.keys() == public.keys()
    assert set(NAMED.values()) == {loss.__name__ for loss in SLOW}
    softened = {name for name, one in public.items() if "temperature" in signature(one).parameters}
    assert {NAMED[name] for name in softened} == {loss.__name__ for loss in SOFTENED}
    named = {
        key for one in public.values() for key, of in signature(one).parameters.items() if of.kind is of.KEYWORD_ONLY
    }
    assert named == {"temperature", "beta"}


@pytest.mark.parametrize("loss", SOFTENED)
def test_temperature_bites(loss: Loss) -> None:
    s, t, y = _data()
    assert (loss(s, t, y, 1.0) - loss(s, t, y, 3.0)).abs().min() > 1e-3


def test_beta_weighs_the_others() -> None:
    s, t, y = _data()
    none, one, four = (decoupled(s, t, y, temperature=2.0, beta=beta) for beta in (0.0, 1.0, 4.0))
    assert (one - none).min() > 1e-3
    torch.testing.assert_close(four - none, 4 * (one - none))


# Examples


@pytest.mark.parametrize("loss", EVERY)
def test_a_batch_equals_its_singles_in_any_order(loss: Loss) -> None:
    s, t, y = _data()
    together = loss(s, t, y, 2.0)
    singles = [loss(s[i : i + 1], t[i : i + 1], y[i : i + 1], 2.0) for i in range(B)]
    torch.testing.assert_close(together, torch.cat(singles))
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    torch.testing.assert_close(loss(s[order], t[order], y[order], 2.0), together[order])


@pytest.mark.parametrize("loss", EVERY)
def test_each_student_of_a_stack_has_its_own(loss: Loss) -> None:
    s, t, y = _data()
    students = torch.stack([s, -s, s.flip(0)])
    torch.testing.assert_close(loss(students, t, y, 2.0), torch.stack([loss(one, t, y, 2.0) for one in students]))


@pytest.mark.parametrize("loss", EVERY)
def test_an_empty_batch_gives_no_values(loss: Loss) -> None:
    s, t, y = _data(0)
    s.requires_grad_()
    found = loss(s, t, y, 2.0)
    assert found.shape == (0,)
    assert torch.autograd.grad(found.sum(), s)[0].shape == (0, C)


@pytest.mark.parametrize("loss", EVERY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keeps_the_dtype(loss: Loss, dtype: torch.dtype) -> None:
    s, t, y = _data(dtype=dtype)
    assert loss(s, t, y, 2.0).dtype == dtype
    exact = loss(s.double(), t.double(), y, 2.0)
    torch.testing.assert_close(loss(s, t, y, 2.0).double(), exact, rtol=1e-5, atol=1e-5)


# Columns


@pytest.mark.parametrize("loss", [_binary, _mse, _features])
def test_repeated_columns_change_nothing(loss: Loss) -> None:
    s, t, y = _data()
    torch.testing.assert_close(loss(s.repeat(1, 3), t.repeat(1, 3), y, 2.0), loss(s, t, y, 2.0))


@pytest.mark.parametrize("loss", [_soft, _decoupled])
def test_impossible_classes_change_nothing(loss: Loss) -> None:
    s, t, y = _data()
    impossible = torch.full((B, 3), -1e4, dtype=s.dtype)
    longer = loss(torch.cat([s, impossible], 1), torch.cat([t, impossible], 1), y, 2.0)
    torch.testing.assert_close(longer, loss(s, t, y, 2.0))


@pytest.mark.parametrize("loss", SOFTMAXED)
def test_offsets_shared_by_classes_change_nothing(loss: Loss) -> None:
    s, t, y = _data()
    offset = torch.arange(B, dtype=s.dtype)[:, None]
    torch.testing.assert_close(loss(s + 3 * offset, t - offset, y, 2.0), loss(s, t, y, 2.0))


def test_an_offset_counts_for_logits_themselves() -> None:
    s, _, _ = _data()
    torch.testing.assert_close(logit_mse(s + 3, s), torch.full((B,), 9.0, dtype=s.dtype))


# Gradients


@pytest.mark.parametrize("loss", EVERY)
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_gradcheck(loss: Loss, temperature: float) -> None:
    s, t, y = _data(3)
    s.requires_grad_()
    t.requires_grad_()  # nothing is detached on the way
    assert torch.autograd.gradcheck(lambda s, t: loss(s, t, y, temperature), (s, t))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_gradient_of_soft_targets_is_a_difference_of_chances(temperature: float) -> None:
    s, t, y = _data()
    expected = temperature * ((s / temperature).softmax(1) - (t / temperature).softmax(1))
    torch.testing.assert_close(_gradient(_soft, s, t, y, temperature), expected)


def test_hot_gradients_match_logits() -> None:
    s, t, y = _data()
    centred = (s - t) - (s - t).mean(1, keepdim=True)
    torch.testing.assert_close(_gradient(_soft, s, t, y, 1e5), centred / C, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(_gradient(_binary, s, t, y, 1e5), (s - t) / 4 / C, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("loss", SOFTENED)
def test_gradients_keep_their_size_at_any_high_temperature(loss: Loss) -> None:
    s, t, y = _data()
    warm, hot = (_gradient(loss, s, t, y, temperature) for temperature in (1e3, 1e5))
    torch.testing.assert_close(warm, hot, rtol=0, atol=1e-2)
    assert hot.abs().max() > 0.1


# Where exponentials underflow


@pytest.mark.parametrize("loss", EVERY)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 20.0])
@pytest.mark.parametrize("scale", [1e2, 1e4, 1e8])
def test_extreme_logits_are_as_good_in_float32(loss: Loss, temperature: float, scale: float) -> None:
    s, t, y = _data(31, scale=scale, dtype=torch.float32)
    found, slope = loss(s, t, y, temperature), _gradient(loss, s, t, y, temperature)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found.double(), loss(s.double(), t.double(), y, temperature), rtol=1e-5, atol=1e-3)
    expected = _gradient(loss, s.double(), t.double(), y, temperature)
    torch.testing.assert_close(slope.double(), expected, rtol=1e-5, atol=2e-5 * temperature * BETA)


@pytest.mark.parametrize("loss", SOFTENED)
@pytest.mark.parametrize("scale", [1e4, 1e30])
def test_sure_and_opposed_stays_finite(loss: Loss, scale: float) -> None:
    signs = torch.tensor([[1.0, -1.0, 0.0, 1.0, -1.0], [1.0, -1.0, -1.0, -1.0, -1.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    for flipped in (-signs, signs.flip(1), torch.zeros(3, C), signs):
        for y in torch.arange(C).repeat(3, 1).T:
            assert torch.isfinite(loss(scale * signs, scale * flipped, y, 1.0)).all()
            assert torch.isfinite(_gradient(loss, scale * signs, scale * flipped, y, 1.0)).all()


def test_costs_of_being_surely_wrong() -> None:
    sure, unsure = torch.tensor([[1e4, 0.0, 0.0]]), torch.zeros(1, 3)
    wrong = torch.tensor([[0.0, 1e4, 0.0]])
    assert soft_targets(wrong, sure, temperature=1.0).item() == 1e4
    first = 2 / 3 * (1e4 + math.log(2 / 3) - math.log(2)) + math.log(1 / 3) / 3
    second = (1e4 + math.log(1 / 3)) / 3 + 2 / 3 * math.log(2 / 3)
    cost = ordinal_soft_targets(sure, unsure, temperature=1.0).item()
    assert cost == pytest.approx((first + second) / 2, rel=1e-6)
    one = torch.tensor([[1e4], [-1e4]])  # 1 − σ would be 0 for the first, σ for the second
    found = binary_soft_targets(one, torch.zeros(2, 1), temperature=1.0)
    assert found.tolist() == pytest.approx([5e3 - math.log(2)] * 2, rel=1e-6)


# Ordered grades


def test_ordinal_costs_grow_with_distance() -> None:
    sure = 8.0 * torch.eye(C, dtype=torch.float64)
    teacher = sure[:1].expand(C, C)
    costs = ordinal_soft_targets(sure, teacher, temperature=1.0)
    assert (costs.diff() > 1.0).all()
    nominal = soft_targets(sure, teacher, temperature=1.0)  # a wrong grade is a wrong grade
    torch.testing.assert_close(nominal[1:], nominal[1].expand(C - 1))


# Decoupled


def test_decoupled_with_what_the_teacher_leaves_is_soft_targets() -> None:
    s, t, y = _data()
    left = 1 - (t / 2).softmax(1).gather(1, y[:, None])[:, 0]
    singles = [
        decoupled(s[i : i + 1], t[i : i + 1], y[i : i + 1], temperature=2.0, beta=left[i].item()) for i in range(B)
    ]
    torch.testing.assert_close(torch.cat(singles), soft_targets(s, t, temperature=2.0))


@pytest.mark.parametrize("k", range(C))
def test_decoupled_parts_know_nothing_of_each_other(k: int) -> None:
    s, t, _ = _data()
    y = torch.full((B,), k)

    def parts(student: Tensor) -> tuple[Tensor, Tensor]:
        target_or_not = decoupled(student, t, y, temperature=2.0, beta=0.0)
        return target_or_not, decoupled(student, t, y, temperature=2.0, beta=1.0) - target_or_not

    before = parts(s)
    surer = s.clone()
    surer[:, k] += 2.0
    after = parts(surer)
    torch.testing.assert_close(after[1], before[1])
    assert (after[0] - before[0]).abs().min() > 1e-3
    # others in reverse order keep their total chance
    others = [i for i in range(C) if i != k]
    swapped = s.clone()
    swapped[:, others] = s[:, others[::-1]]
    after = parts(swapped)
    torch.testing.assert_close(after[0], before[0])
    assert (after[1] - before[1]).abs().max() > 1e-2


@pytest.mark.parametrize("logit", [-1e4, 1e4])
def test_others_are_told_apart_beside_a_sure_target(logit: float) -> None:
    s, t, _ = _data()
    expected = soft_targets(s[:, 1:], t[:, 1:], temperature=1.0)
    s[:, 0] = t[:, 0] = logit  # a teacher this sure leaves them no chance: what `soft_targets` cannot hear
    found = decoupled(s, t, torch.zeros(B, dtype=torch.long), temperature=1.0, beta=1.0)
    torch.testing.assert_close(found, expected)


def test_decoupled_takes_any_integer_labels() -> None:
    s, t, y = _data()
    short = decoupled(s, t, y.to(torch.int16), temperature=2.0, beta=1.0)
    torch.testing.assert_close(short, decoupled(s, t, y, temperature=2.0, beta=1.0), rtol=0, atol=0)


# Attention


def test_attention_by_hand() -> None:
    student, teacher = torch.tensor([[[3.0, 0.0], [0.0, 4.0]]]), torch.tensor([[[8.0, 0.0], [0.0, 6.0]]])
    assert attention_distance(student, teacher).item() == pytest.approx(0.2**2 + 0.2**2, rel=1e-5)
    assert attention_distance(student, -teacher).item() == pytest.approx(1.4**2 + 1.4**2, rel=1e-5)


@pytest.mark.parametrize("factor", [1e-18, 1e-3, 1e15])
def test_attention_knows_no_scale(factor: float) -> None:
    s, t = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(attention_distance(factor * s, t), attention_distance(s, t))
    torch.testing.assert_close(attention_distance(s, factor * t), attention_distance(s, t))


def test_attention_averages_the_teacher_over_the_students_grid() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.rand(3, 2, 3, generator=generator), torch.rand(3, 6, 6, generator=generator)
    blocks = teacher.reshape(3, 2, 3, 3, 2).mean(dim=(2, 4))
    torch.testing.assert_close(attention_distance(student, teacher), attention_distance(student, blocks))
    finer = blocks.repeat_interleave(5, dim=1).repeat_interleave(2, dim=2)
    torch.testing.assert_close(attention_distance(finer, blocks), torch.zeros(3), rtol=0, atol=1e-6)
    # sizes that do not divide: a flat map stays flat
    assert attention_distance(torch.ones(1, 3, 5), torch.ones(1, 7, 11)).item() == pytest.approx(0.0, abs=1e-6)


def test_maps_of_zeros_have_second_derivatives() -> None:
    mixed = torch.stack([torch.zeros(3, 5), torch.rand(3, 5)]).requires_grad_()
    (slope,) = torch.autograd.grad(attention_distance(mixed, torch.rand(2, 3, 5)).sum(), mixed, create_graph=True)
    (again,) = torch.autograd.grad(slope.sin().sum(), mixed)
    assert again.isfinite().all()
    assert again[0].abs().max() == 0
    assert again[1].abs().max() > 1e-3


def test_maps_of_zeros_have_no_direction() -> None:
    zeros, some = torch.zeros(2, 3, 5), torch.rand(2, 3, 5, generator=torch.Generator().manual_seed(0))
    mixed = torch.stack([zeros[0], some[0]]).requires_grad_()  # a zero map beside one that learns
    for teacher, expected in ((some, 1.0), (zeros, 0.0)):
        found = attention_distance(mixed, teacher)
        assert found[0].item() == pytest.approx(expected, rel=1e-6)
        slope = torch.autograd.grad(found.sum(), mixed)[0]
        assert torch.isfinite(slope).all()
        assert (slope[0] == 0).all()
    assert _gradient(_attention, some[:, 0], some[:, 1], torch.zeros(2), 1.0).abs().max() > 0.1
