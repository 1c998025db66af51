"""Soft-target formats on a toy teacher: what each reconstructs, what it costs, its gradient."""

import dataclasses
import json
import math

import hydra
import pytest
import torch
from omegaconf import OmegaConf

from soaes.model import chunked_loss, losses
from soaes.model import soft_targets as formats
from soaes.model.fidelity import measure_fidelity, smallest_k
from soaes.pipeline import compose
from tests.helpers.gradients import assert_gradient

N, D, V = 6, 8, 40  # tokens, width, vocabulary
TAUS = (1.0, 2.0, 3.0, 5.0)
ALL = [formats.Hidden(), formats.Full(), formats.TopK(7, TAUS, "float32"), formats.Sampled(5, TAUS)]


def drawn(tokens=N):
    """hidden_ND, head_VD, student_NV: a teacher sure of some tokens only, and a student near it."""
    generator = torch.Generator().manual_seed(0)
    hidden, head = (
        torch.randn(tokens, D, generator=generator),
        torch.randn(V, D, generator=generator),
    )
    return hidden, head, hidden @ head.T + torch.randn(tokens, V, generator=generator)


def seeded(seed=1):
    return torch.Generator().manual_seed(seed)


def served(each, kind):
    """Whether a format supports a divergence at tau = 2."""
    try:
        each.check_supports(2.0, kind)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    "each",
    [*ALL, formats.Hidden("bfloat16"), formats.Full("bfloat16"), formats.TopK(7, TAUS, "bfloat16")],
    ids=str,
)
def test_what_is_encoded_has_the_stated_fields_and_settings_survive_json(each):
    hidden, head, _ = drawn()
    fields = each.encode(hidden, head, seeded())
    assert {
        name: (tuple(array.shape[1:]), str(array.numpy().dtype)) for name, array in fields.items()
    } == each.fields(D, V)
    settings = json.loads(json.dumps(dataclasses.asdict(each)))
    assert formats.FORMATS[each.name](**settings) == each
    assert (
        formats.bytes_per_token(each, D, V)
        == sum(array.numpy().nbytes for array in fields.values()) / N
    )


@pytest.mark.parametrize("name", formats.FORMATS)
def test_every_option_is_a_format(name):
    options = compose.compose_job([f"soft_targets={name}"]).soft_targets
    settings = hydra.utils.instantiate(options)
    assert formats.from_settings(settings).name == settings.name == name


@pytest.mark.parametrize("kind", losses.DIVERGENCES)
@pytest.mark.parametrize("tau", TAUS)
@pytest.mark.parametrize(
    "each",
    [
        formats.Hidden(),
        formats.Full(),
        formats.TopK(V, TAUS, "float32"),
        formats.TopK(10 * V, TAUS, "float32"),
    ],
    ids=str,
)
def test_what_keeps_everything_is_exact(each, tau, kind):
    hidden, head, student = drawn()
    value = each.divergence(each.encode(hidden, head, seeded()), head, student, tau, kind)
    torch.testing.assert_close(
        value, losses.DIVERGENCES[kind](hidden @ head.T, student, tau), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("tau_squared", [False, True])
@pytest.mark.parametrize("kind", losses.DIVERGENCES)
@pytest.mark.parametrize("each", ALL, ids=lambda each: each.name)
def test_the_gradient_is_of_the_reported_loss(each, kind, tau_squared):
    if not served(each, kind):
        return
    hidden, head, student = drawn(tokens=3)
    fields = each.encode(hidden, head, seeded())
    assert_gradient(
        lambda logits: (
            0.5 * each.divergence(fields, head, logits, 2.0, kind) * (4 if tau_squared else 1)
        ),
        student,
    )


@pytest.mark.parametrize("each", ALL, ids=lambda each: each.name)
def test_a_step_may_take_the_tokens_in_chunks(each):
    hidden, head, _ = drawn()
    own, draft_head = (
        torch.randn(N, 5, generator=seeded()),
        torch.randn(V, 5, generator=seeded(2)).requires_grad_(),
    )
    fields, tokens = each.encode(hidden, head, seeded()), torch.arange(N)

    def of_chunk(logits, where):
        part = {name: array[where] for name, array in fields.items()}
        return 0.5 * each.divergence(
            part, head, logits, 2.0, "forward"
        ) + 0.5 * losses.cross_entropy(logits, tokens[where])

    whole, parts = (
        torch.autograd.grad(
            chunked_loss.chunked_loss(own, draft_head, of_chunk, chunk), draft_head
        )[0]
        for chunk in (N, 4)
    )
    torch.testing.assert_close(whole, parts)


@pytest.mark.parametrize("kind", losses.DIVERGENCES)
def test_topk_is_a_lower_bound_that_grows_with_k(kind):
    hidden, head, student = drawn()
    each_k = [formats.TopK(k, TAUS, "float32") for k in (1, 4, 16, V)]
    values = [
        each.divergence(each.encode(hidden, head), head, student, 2.0, kind).item()
        for each in each_k
    ]
    assert values == sorted(values) and 0 < values[0] < values[-1]


def test_topks_shares_are_the_teachers():
    hidden, head, _ = drawn()
    each = formats.TopK(7, TAUS)  # in float16
    fields = each.encode(hidden, head)
    for tau in TAUS:
        p = (hidden @ head.T / tau).softmax(-1).sort(descending=True).values
        expected = torch.cat([p[:, :7], p[:, 7:].sum(1, keepdim=True)], dim=1)
        torch.testing.assert_close(
            each.log_shares(fields, tau).exp(), expected, rtol=5e-3, atol=1e-6
        )
        assert torch.allclose(each.probabilities(fields, head, V, tau).sum(1), torch.ones(N))


def test_a_sure_teachers_tail_does_not_drown_in_rounding():
    hidden, head = torch.eye(3)[:1] * 20, torch.eye(3)  # p = 1, e^-20, e^-20
    each = formats.TopK(1, [1.0])
    assert each.encode(hidden, head)["tail"].item() == pytest.approx(math.log(2) - 20, abs=1e-4)
    student = torch.tensor([[30.0, 0.0, 0.0]], requires_grad=True)
    loss = each.divergence(each.encode(hidden, head), head, student, 1.0, "forward")
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(student.grad).all()


def test_draws_are_the_teachers_on_average_whatever_the_offset():
    """By enumeration: over a fine grid of offsets the mean shares are the probabilities."""
    logits = torch.tensor([[2.0, 0.0, 1.0, -3.0, 0.5]])
    offsets = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    for tau in TAUS:
        ids, entropy = formats.systematic_draws(logits.repeat(4000, 1), tau, offsets, 3)
        shares = torch.bincount(ids.flatten(), minlength=5) / ids.numel()
        torch.testing.assert_close(shares, (logits / tau).softmax(-1)[0], rtol=0, atol=1e-3)
        assert entropy[0].item() == pytest.approx(losses.entropy(logits, tau).item(), abs=1e-6)


def test_draws_do_not_depend_on_how_many_tokens_are_drawn_at_once(monkeypatch):
    logits, offsets = torch.randn(7, 20), torch.rand(7, dtype=torch.float64)
    whole_ids, whole_entropy = formats.systematic_draws(logits, 2.0, offsets, 5)
    monkeypatch.setattr(formats, "DRAWN_TOKENS", 3)
    ids, entropy = formats.systematic_draws(logits, 2.0, offsets, 5)
    assert torch.equal(ids, whole_ids) and torch.equal(entropy, whole_entropy)
    assert formats.systematic_draws(logits[:0], 2.0, offsets[:0], 5)[0].shape == (0, 5)


def test_an_id_is_drawn_as_often_as_its_probability_says_up_to_one():
    hidden, head, _ = drawn()
    each = formats.Sampled(11, TAUS)
    fields = each.encode(hidden, head, seeded())
    for tau in TAUS:
        off = 11 * each.probabilities(fields, head, V, tau) - 11 * (hidden @ head.T / tau).softmax(
            -1
        )
        assert off.abs().max() < 1


def test_the_gradient_of_draws_is_softmax_less_their_shares_and_their_loss_that_of_the_shares():
    hidden, head, student = drawn()
    each = formats.Sampled(5, TAUS)
    fields = each.encode(hidden, head, seeded())
    student.requires_grad_()
    each.divergence(fields, head, student, 2.0, "forward").backward()
    shares = each.probabilities(fields, head, V, 2.0)
    torch.testing.assert_close(student.grad, ((student / 2).softmax(-1) - shares).detach() / 2)


def test_draws_depend_on_the_generator_alone():
    hidden, head, _ = drawn()
    each = formats.Sampled(5, TAUS)
    once, again, other = (
        each.encode(hidden, head, seeded(seed))["ids"].long() for seed in (1, 1, 2)
    )
    assert torch.equal(once, again) and not torch.equal(once, other)


@pytest.mark.parametrize(
    "each",
    [formats.TopK(7, TAUS, "float32", vocab=36), formats.Sampled(5, TAUS, vocab=36)],
    ids=lambda each: each.name,
)
def test_vocabularies_of_different_padding_meet_on_their_common_ids(each):
    hidden, head, student = drawn()
    fields = each.encode(hidden, head, seeded())
    assert fields["ids"].long().max() < 36
    values = [
        each.divergence(fields, head, student[:, :size], 2.0, "forward") for size in (36, 38, 40)
    ]
    assert torch.equal(values[0], values[1]) and torch.equal(values[0], values[2])
    alone = dataclasses.replace(each, vocab=None)
    assert torch.equal(
        values[0],
        alone.divergence(
            alone.encode(hidden, head[:36], seeded()), None, student[:, :36], 2.0, "forward"
        ),
    )


NOT_STORED = (
    "tau=4: the soft targets are stored at 1, 2, 3, 5; add it to soft_targets.taus, "
    "or set soft_targets=hidden"
)


@pytest.mark.parametrize(
    ("each", "tau", "kind", "words"),
    [
        (ALL[2], 4.0, "forward", NOT_STORED),
        (ALL[3], 4.0, "forward", "soft_targets=hidden"),
        (ALL[3], 2.0, "reverse", "forward KL alone; set soft_targets=hidden"),
        (ALL[0], -1.0, "forward", "tau=-1"),
        (ALL[1], 2.0, "backward", "one of forward, reverse, total_variation"),
    ],
    ids=["topk tau", "sampled tau", "sampled divergence", "tau range", "unknown divergence"],
)
def test_what_a_format_cannot_serve_is_refused_with_the_way_out(each, tau, kind, words):
    with pytest.raises(ValueError, match=words):
        each.check_supports(tau, kind)


@pytest.mark.parametrize(
    "make",
    [
        lambda: formats.TopK(0, TAUS),
        lambda: formats.Sampled(0, TAUS),
        lambda: formats.TopK(3, []),
        lambda: formats.TopK(3, [0.0]),
        lambda: formats.Hidden("int8"),
    ],
    ids=["k", "draws", "no taus", "tau zero", "dtype"],
)
def test_settings_out_of_range_are_refused(make):
    with pytest.raises(ValueError, match="k=|draws=|taus?=|dtype="):
        make()


def test_sizes_at_the_papers_shape():
    width, vocab = 8192, 152064
    full = formats.bytes_per_token(formats.Full("float16"), width, vocab)
    assert (
        full == 304128
        and full / formats.bytes_per_token(formats.Hidden("float16"), width, vocab) == vocab / width
    )
    sampled = OmegaConf.load("conf/soft_targets/sampled.yaml")
    assert (
        full / formats.bytes_per_token(formats.Sampled(sampled.draws, [2.0]), width, vocab) >= 1000
    )
    assert formats.TopK(3, [2.0]).fields(width, vocab)["ids"] == ((3,), "uint32")


def test_fidelity_finds_what_a_format_loses():
    hidden, head, student = drawn(tokens=20)
    exact, topk, sampled = (
        measure_fidelity(each, hidden, head, student, TAUS, 40, seeded())
        for each in (formats.Hidden(), formats.TopK(7, TAUS), formats.Sampled(5, TAUS))
    )
    for errors in exact:
        assert (
            abs(errors["kl"]) < 1e-9 and errors["gradient_bias"] == errors["gradient_variance"] == 0
        )
    assert [errors["gradient_bias"] for errors in topk] == sorted(
        errors["gradient_bias"] for errors in topk
    ) and topk[0]["kl"] > 0
    for errors in sampled:
        assert errors["low"] <= 0 <= errors["high"] and errors["gradient_variance"] > 0


@pytest.mark.parametrize("tau", TAUS)
def test_the_smallest_k_is_within_the_limit_and_the_next_smaller_is_not(tau):
    hidden, head, student = drawn(tokens=20)
    k = smallest_k(hidden, head, student, tau, limit=0.05)
    within, beyond = (
        measure_fidelity(
            formats.TopK(size, TAUS, "float32"), hidden, head, student, [tau], 1, seeded()
        )[0]
        for size in (k, k - 1)
    )
    assert within["gradient_bias"] < 0.05 <= beyond["gradient_bias"]


def masked():
    """`drawn`, of a teacher that gives the ids 30 to 35 the probability 0; see its last state."""
    hidden, head, student = drawn(tokens=20)
    hidden[:, 0] = 1
    head[30:36, 0] = -math.inf
    return hidden, head, student


MASKED = [
    *ALL,
    formats.Full("float16"),
    formats.Full("bfloat16"),
    formats.TopK(V, TAUS),
    formats.TopK(V, TAUS, "float32"),
]


@pytest.mark.parametrize("kind", losses.DIVERGENCES)
@pytest.mark.parametrize("each", MASKED, ids=str)
def test_a_teachers_ids_of_probability_zero_leave_loss_and_gradient_finite(each, kind):
    hidden, head, student = masked()
    if not served(each, kind):
        return
    if kind == "reverse":
        student[:, 30:36] = -math.inf  # else infinite, as it should be
    student.requires_grad_()
    fields = each.encode(hidden, head, seeded())
    loss = each.divergence(fields, head, student, 2.0, kind)
    exact = losses.DIVERGENCES[kind](hidden @ head.T, student, 2.0)
    (gradient,) = torch.autograd.grad(loss, student)
    assert torch.isfinite(gradient).all()
    keeps_everything = not isinstance(each, formats.Sampled) and getattr(each, "k", V) == V
    if keeps_everything:
        torch.testing.assert_close(loss, exact, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("each", MASKED, ids=str)
def test_a_masked_teachers_fidelity_is_numbers(each):
    hidden, head, student = masked()
    student[:, 30:36] = -math.inf
    entries = measure_fidelity(each, hidden, head, student, TAUS, 2, seeded())
    json.dumps(entries, allow_nan=False)
    assert all(entry.get("smallest_k", 1) <= 34 for entry in entries)  # of V - 6 with a probability


@pytest.mark.parametrize("each", [*ALL, formats.TopK(7, TAUS, "bfloat16")], ids=str)
@pytest.mark.parametrize("value", [math.nan, math.inf], ids=str)
def test_a_teacher_that_computes_no_number_is_refused(each, value):
    hidden, head, _ = drawn()
    hidden[2, 3] = value
    with pytest.raises(ValueError, match="the teacher computes (nan|inf): its weights are damaged"):
        each.encode(hidden, head, seeded())


@pytest.mark.parametrize("each", [formats.Hidden("float16"), formats.Full("float16")], ids=str)
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_teacher_beyond_the_range_of_what_is_stored_is_refused(each, sign):
    hidden, head, _ = drawn()
    hidden[2] *= sign * 1e6
    way_out = "beyond the range of dtype=float16; set soft_targets.dtype=float32"
    with pytest.raises(ValueError, match=way_out):
        each.encode(hidden, head)
