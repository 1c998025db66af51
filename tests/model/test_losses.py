"""Eq. 1 and 2 against figures computed by other packages, and the laws at alpha's ends."""

import math

import pytest
import torch

from soaes.model import losses
from soaes.model.settings import ConstantSchedule, CosineSchedule, Hidden, LinearSchedule
from tests.helpers.gradients import assert_gradient

STUDENT = torch.tensor([[2.0, 1.0, 0.5, -1.0, 0.0], [0.1, 0.2, 0.3, 0.4, 0.5]])
TEACHER = torch.tensor([[3.0, 0.5, 0.0, -0.5, 1.0], [1.0, -1.0, 2.0, 0.0, 0.5]])
CE = 1.5969271659851074


def labels():
    """The labels whose mean cross-entropy is CE."""
    pairs = [torch.tensor([a, b]) for a in range(5) for b in range(5)]
    return min(pairs, key=lambda pair: abs(losses.cross_entropy(STUDENT, pair).item() / 2 - CE))


def eq2(teacher, student, labels, alpha, tau, kind="forward", tau_squared=False):
    kl = losses.DIVERGENCES[kind](teacher, student, tau)
    return losses.distillation_loss(kl, student, labels, alpha, tau, tau_squared)


@pytest.mark.parametrize(
    ("tau", "kl", "mixed"),
    [(1.0, 0.2871898114681244, 0.9420584887266159), (2.0, 0.08942263573408127, 0.8431749008595943)],
)
def test_equations_match_the_reference(tau, kl, mixed):
    assert losses.kl_loss(TEACHER, STUDENT, tau).item() / 2 == pytest.approx(kl, abs=1e-6)
    assert losses.cross_entropy(STUDENT, labels()).item() / 2 == pytest.approx(CE, abs=1e-6)
    assert eq2(TEACHER, STUDENT, labels(), 0.5, tau).item() / 2 == pytest.approx(mixed, abs=1e-6)


@pytest.mark.parametrize(
    ("tau", "reverse", "jensen_shannon", "squared"),
    [
        (1.0, 0.3370499312877655, 0.07339921593666077, 0.9420584887266159),
        (2.0, 0.09274844080209732, 0.022442186251282692, 0.9773088544607162),
    ],
)
def test_the_other_divergences_and_tau_squared_match_the_reference(
    tau, reverse, jensen_shannon, squared
):
    assert losses.reverse_kl(TEACHER, STUDENT, tau).item() / 2 == pytest.approx(reverse, abs=1e-6)
    p, q = ((each / tau).softmax(-1) for each in (TEACHER, STUDENT))
    to_the_middle = [
        losses.kl_loss(each.log(), ((p + q) / 2).log(), 1.0).item() / 2 for each in (p, q)
    ]
    assert sum(to_the_middle) / 2 == pytest.approx(jensen_shannon, abs=1e-6)
    assert eq2(TEACHER, STUDENT, labels(), 0.5, tau, tau_squared=True).item() / 2 == pytest.approx(
        squared, abs=1e-6
    )


@pytest.mark.parametrize("tau", [1.0, 2.0])
def test_total_variation_is_one_less_the_overlap(tau):
    p, q = ((each / tau).softmax(-1) for each in (TEACHER, STUDENT))
    value = losses.total_variation(TEACHER, STUDENT, tau).item()
    assert value == pytest.approx((1 - torch.minimum(p, q).sum(-1)).sum().item(), abs=1e-6)
    assert value == pytest.approx((p - q).abs().sum().item() / 2, abs=1e-6)


@pytest.mark.parametrize("tau_squared", [False, True])
@pytest.mark.parametrize("kind", losses.DIVERGENCES)
def test_the_gradient_is_of_the_reported_loss(kind, tau_squared):
    def loss(student):
        return eq2(TEACHER.double(), student, labels(), 0.3, 2.0, kind, tau_squared)

    assert_gradient(loss, STUDENT.double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_written_out_gradients_are_autograds(dtype):
    generator = torch.Generator().manual_seed(0)
    teacher, student = (8 * torch.randn(6, 400, generator=generator) for _ in range(2))
    student, ids = student.to(dtype).requires_grad_(), torch.arange(6 * 5).view(6, 5) * 13
    functional = torch.nn.functional
    of_student, of_teacher = (
        functional.log_softmax(each.float() / 3, dim=-1) for each in (student, teacher)
    )
    others = of_student.scatter(1, ids, -math.inf).logsumexp(-1, keepdim=True)
    at_ids = of_student.gather(1, ids)
    shares = torch.cat([at_ids, others], 1)
    kl = functional.kl_div(of_student, of_teacher, reduction="sum", log_target=True)
    cross_entropy = functional.cross_entropy(student.float(), ids[:, 0], reduction="sum")
    pairs = [
        (losses.kl_loss(teacher, student, 3.0), kl),
        (losses.cross_entropy(student, ids[:, 0]), cross_entropy),
        (losses.log_probabilities(student, ids, 3.0).square().sum(), at_ids.square().sum()),
        (losses.log_shares(student, ids, 3.0).square().sum(), shares.square().sum()),
    ]
    for mine, autograds in pairs:
        torch.testing.assert_close(mine, autograds, rtol=1e-6, atol=1e-6)
        (to_mine,), (to_autograds,) = (
            torch.autograd.grad(loss, student, retain_graph=True) for loss in (mine, autograds)
        )
        torch.testing.assert_close(
            to_mine, to_autograds, rtol=1e-5 if dtype == torch.float32 else 1e-2, atol=1e-6
        )


@pytest.mark.parametrize("kind", losses.DIVERGENCES)
def test_a_divergence_of_logs_is_that_of_logits(kind):
    student = STUDENT.clone().requires_grad_()
    pair = (
        losses.DIVERGENCES[kind](TEACHER, student, 2.0),
        losses.DIVERGENCES_OF_LOG_PROBS[kind](
            (TEACHER / 2).log_softmax(-1), (student / 2).log_softmax(-1)
        ),
    )
    torch.testing.assert_close(*pair)
    torch.testing.assert_close(*(torch.autograd.grad(loss, student)[0] for loss in pair))


def test_an_id_that_the_student_rules_out_costs_its_logit_and_not_infinity():
    logits = torch.tensor([[0.0, -300.0]], requires_grad=True)
    loss = -losses.log_probabilities(logits, torch.tensor([[1]]), 1.0).sum()
    loss.backward()
    assert loss.item() == pytest.approx(300) and logits.grad.tolist() == [[1.0, -1.0]]


def test_alpha_zero_is_plain_sft_and_one_is_distillation_alone():
    assert torch.equal(
        eq2(TEACHER, STUDENT, labels(), 0.0, 2.0), losses.cross_entropy(STUDENT, labels())
    )
    assert torch.equal(
        eq2(TEACHER, STUDENT, labels(), 1.0, 2.0), losses.kl_loss(TEACHER, STUDENT, 2.0)
    )


def test_a_student_that_equals_its_teacher_has_no_kl_and_no_gradient():
    student = TEACHER.clone().requires_grad_()
    loss = losses.kl_loss(TEACHER, student, 2.0)
    loss.backward()
    assert abs(loss.item()) < 1e-6 and student.grad.abs().max() < 1e-6


def test_entropy_is_what_a_distribution_has_and_a_temperature_adds_to_it():
    assert losses.entropy(torch.zeros(2, 5), 3.0).item() / 2 == pytest.approx(math.log(5))
    assert losses.entropy(torch.tensor([[90.0, 0.0]]), 1.0).item() == pytest.approx(0, abs=1e-6)
    from_torch = torch.distributions.Categorical(logits=TEACHER / 2).entropy().sum()
    assert losses.entropy(TEACHER, 2.0).item() == pytest.approx(from_torch.item(), abs=1e-6)
    entropies = [losses.entropy(TEACHER, tau).item() for tau in (1, 2, 3, 5)]
    assert entropies == sorted(entropies)


@pytest.mark.parametrize(("of_teacher", "of_student"), [(152064, 151936), (151936, 152064)])
@pytest.mark.parametrize("kind", losses.DIVERGENCES)
def test_padded_vocabularies_are_compared_on_the_common_ids(kind, of_teacher, of_student):
    generator = torch.Generator().manual_seed(0)
    teacher, student = (
        torch.randn(1, size, generator=generator) for size in (of_teacher, of_student)
    )
    student.requires_grad_()
    value = losses.DIVERGENCES[kind](teacher, student, 2.0)
    assert torch.equal(
        value, losses.DIVERGENCES[kind](teacher[:, :151936], student[:, :151936], 2.0)
    )
    value.backward()
    assert torch.all(student.grad[:, 151936:] == 0) and student.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("alpha", "tau"),
    [(-0.1, 2.0), (1.1, 2.0), (0.5, 0.0), (0.5, -1.0), (math.nan, 2.0), (0.5, math.inf)],
)
def test_out_of_range_is_refused_by_name(alpha, tau):
    with pytest.raises(ValueError, match=r"alpha=|tau="):
        eq2(TEACHER, STUDENT, labels(), alpha, tau)


def test_an_unknown_divergence_is_refused_by_name():
    with pytest.raises(
        ValueError, match="divergence=backward: must be one of forward, reverse, total_variation"
    ):
        Hidden().check_supports(2.0, "backward")


def test_schedules_warm_up_and_end_as_the_paper_says():
    schedule = CosineSchedule(warmup=0.05, final=0.1)
    cosine = [schedule(step, 1000) for step in range(1000)]
    assert (
        cosine[0] == pytest.approx(1 / 50)
        and max(cosine) == pytest.approx(1.0)
        and cosine[-1] == pytest.approx(0.1)
    )
    assert all(later <= earlier for earlier, later in zip(cosine[50:], cosine[51:], strict=False))
    linear = [LinearSchedule(warmup=0.05, final=0.1)(step, 1000) for step in range(1000)]
    assert linear[24] == pytest.approx(0.5) and linear[50] == pytest.approx(1.0)
    assert linear[525] == pytest.approx(0.55) and linear[-1] == pytest.approx(0.1, abs=1e-3)
    assert LinearSchedule(warmup=0.05, final=0)(999, 1000) > 0, "no step is lost"
    constant = [ConstantSchedule(warmup=0.05)(step, 1000) for step in range(1000)]
    assert constant[24] == pytest.approx(0.5) and set(constant[49:]) == {1.0}


def without(logits, ids, value):
    """Logits with a value in place of those of some ids."""
    changed = logits.clone()
    changed[:, ids] = value
    return changed


@pytest.mark.parametrize("of_log_probs", [False, True], ids=["of-logits", "of-log-probabilities"])
@pytest.mark.parametrize("kind", losses.DIVERGENCES)
@pytest.mark.parametrize("masks_student", [False, True], ids=["teacher", "both"])
def test_an_id_of_logit_minus_infinity_is_an_id_of_probability_zero(
    kind, of_log_probs, masks_student
):
    """As of a logit so low that its probability underflows, at which nothing is infinite."""
    if kind == "reverse" and not masks_student:
        return  # infinite: the student has mass where the teacher has none
    results = []
    for value in (-math.inf, -1e4):
        student = without(STUDENT, [1, 4], value) if masks_student else STUDENT.clone()
        teacher = without(TEACHER, [1, 4], value)
        student.requires_grad_()
        if of_log_probs:
            log_probs = [(each / 2).log_softmax(-1) for each in (teacher, student)]
            loss = losses.DIVERGENCES_OF_LOG_PROBS[kind](*log_probs)
        else:
            loss = losses.DIVERGENCES[kind](teacher, student, 2.0)
        results.append((loss.detach(), *torch.autograd.grad(loss, student)))
        assert torch.isfinite(loss) and torch.isfinite(results[-1][1]).all()
    for masked, underflown in zip(*results, strict=True):
        torch.testing.assert_close(masked, underflown)


def test_the_entropy_of_a_masked_teacher_is_that_of_its_other_ids():
    masked = losses.entropy(without(TEACHER, [1, 4], -math.inf), 2.0)
    torch.testing.assert_close(masked, losses.entropy(TEACHER[:, [0, 2, 3]], 2.0))


def test_the_reverse_divergence_is_infinite_where_the_teacher_has_no_mass():
    teacher = without(TEACHER, [1], -math.inf)
    assert losses.reverse_kl(teacher, STUDENT, 1.0).item() == math.inf
