"""Eq. 1 and 2 against figures computed by other packages, and the laws at alpha's ends."""

import math

import pytest
import torch

from soaes.model import losses, schedules

STUDENT = torch.tensor([[2.0, 1.0, 0.5, -1.0, 0.0], [0.1, 0.2, 0.3, 0.4, 0.5]])
TEACHER = torch.tensor([[3.0, 0.5, 0.0, -0.5, 1.0], [1.0, -1.0, 2.0, 0.0, 0.5]])
CE = 1.5969271659851074


def labels():
    """The labels whose mean cross-entropy is CE."""
    pairs = [torch.tensor([a, b]) for a in range(5) for b in range(5)]
    return min(pairs, key=lambda pair: abs(losses.cross_entropy(STUDENT, pair).item() / 2 - CE))


@pytest.mark.parametrize(("tau", "kl", "mixed"), [(1.0, 0.2871898114681244, 0.9420584887266159), (2.0, 0.08942263573408127, 0.8431749008595943)])
def test_equations_match_the_reference(tau, kl, mixed):
    assert losses.kl(TEACHER, STUDENT, tau).item() / 2 == pytest.approx(kl, abs=1e-6)
    assert losses.cross_entropy(STUDENT, labels()).item() / 2 == pytest.approx(CE, abs=1e-6)
    assert losses.distillation(TEACHER, STUDENT, labels(), 0.5, tau).item() / 2 == pytest.approx(mixed, abs=1e-6)


def test_alpha_zero_is_plain_sft_and_one_is_distillation_alone():
    assert torch.equal(losses.distillation(TEACHER, STUDENT, labels(), 0.0, 2.0), losses.cross_entropy(STUDENT, labels()))
    assert torch.equal(losses.distillation(TEACHER, STUDENT, labels(), 1.0, 2.0), losses.kl(TEACHER, STUDENT, 2.0))


def test_a_student_that_equals_its_teacher_has_no_kl_and_no_gradient():
    student = TEACHER.clone().requires_grad_()
    loss = losses.kl(TEACHER, student, 2.0)
    loss.backward()
    assert abs(loss.item()) < 1e-6 and student.grad.abs().max() < 1e-6


def test_entropy_is_what_a_distribution_has_and_a_temperature_adds_to_it():
    assert losses.entropy(torch.zeros(2, 5), 3.0).item() / 2 == pytest.approx(math.log(5))
    assert losses.entropy(torch.tensor([[90.0, 0.0]]), 1.0).item() == pytest.approx(0, abs=1e-6)
    from_torch = torch.distributions.Categorical(logits=TEACHER / 2).entropy().sum()
    assert losses.entropy(TEACHER, 2.0).item() == pytest.approx(from_torch.item(), abs=1e-6)
    at = [losses.entropy(TEACHER, tau).item() for tau in (1, 2, 3, 5)]
    assert at == sorted(at)


def test_padded_vocabularies_are_compared_on_the_common_ids():
    padded = torch.cat([TEACHER, torch.full((2, 3), 9.0)], dim=1)
    assert torch.equal(losses.kl(padded, STUDENT, 2.0), losses.kl(TEACHER, STUDENT, 2.0))


@pytest.mark.parametrize(("alpha", "tau"), [(-0.1, 2.0), (1.1, 2.0), (0.5, 0.0), (0.5, -1.0), (math.nan, 2.0), (0.5, math.inf)])
def test_out_of_range_is_refused_by_name(alpha, tau):
    with pytest.raises(ValueError, match=r"alpha=|tau="):
        losses.distillation(TEACHER, STUDENT, labels(), alpha, tau)


def test_schedules_warm_up_and_end_as_the_paper_says():
    cosine = [schedules.cosine(step, 1000, warmup=0.05, final=0.1) for step in range(1000)]
    assert cosine[0] == pytest.approx(1 / 50) and max(cosine) == pytest.approx(1.0) and cosine[-1] == pytest.approx(0.1)
    assert all(later <= earlier for earlier, later in zip(cosine[50:], cosine[51:], strict=False))
    constant = [schedules.constant(step, 1000, warmup=0.05) for step in range(1000)]
    assert constant[24] == pytest.approx(0.5) and set(constant[49:]) == {1.0}
