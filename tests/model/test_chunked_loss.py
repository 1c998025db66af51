"""Chunks of the output matrix: the loss and gradients of all logits, in less memory."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from soaes.model import chunked_loss, losses

N, D, V = 37, 12, 50  # tokens, width, vocabulary


def drawn(tokens=N, width=D, vocab=V):
    """hidden_ND, head_VD, labels_N, teacher_NV."""
    generator = torch.Generator().manual_seed(0)
    hidden, head = (
        torch.randn(shape, generator=generator).requires_grad_()
        for shape in ((tokens, width), (vocab, width))
    )
    return (
        hidden,
        head,
        torch.randint(vocab, (tokens,), generator=generator),
        torch.randn(tokens, vocab, generator=generator),
    )


def gradients(loss, *of):
    return loss.detach(), *torch.autograd.grad(loss, of)


def naive(hidden, head, labels, teacher):
    """Eq. 2 by torch's own functions, over all logits."""
    logits, functional = torch.nn.functional.linear(hidden, head).float(), torch.nn.functional
    student, teacher = (functional.log_softmax(each / 2, dim=-1) for each in (logits, teacher))
    kl = functional.kl_div(student, teacher, reduction="sum", log_target=True)
    return 0.5 * kl + 0.5 * functional.cross_entropy(logits, labels, reduction="sum")


def ours(hidden, head, labels, teacher, chunk):
    def chunk_loss(logits, tokens):
        kl = losses.kl_loss(teacher[tokens], logits, 2.0)
        return losses.distillation_loss(kl, logits, labels[tokens], 0.5, 2.0)

    return chunked_loss.chunked_loss(hidden, head, chunk_loss, chunk)


@pytest.mark.parametrize("chunk", [1, 8, 37, 64])
def test_chunks_add_up_to_the_naive_loss(chunk):
    hidden, head, *rest = drawn()
    for mine, other in zip(
        gradients(ours(hidden, head, *rest, chunk), hidden, head),
        gradients(naive(hidden, head, *rest), hidden, head),
    ):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-6)


def test_under_autocast_it_differs_by_bfloat16_alone():
    hidden, head, *rest = drawn()
    exact = gradients(naive(hidden, head, *rest), hidden, head)
    with torch.autocast("cpu", torch.bfloat16):
        losses_ = ours(hidden, head, *rest, 8), naive(hidden, head, *rest)
    mine, other = (gradients(loss, hidden, head) for loss in losses_)
    for a, b, without in zip(mine, other, exact):
        assert a.dtype == b.dtype == torch.float32
        assert (a - without).norm() <= 1.1 * (
            b - without
        ).norm() + 1e-6  # no further from the exact one than the naive loss is


def test_the_gradient_of_a_scaled_loss_is_scaled():
    hidden, head, *rest = drawn()
    once, thrice = (
        gradients(factor * ours(hidden, head, *rest, 8), hidden, head) for factor in (1, 3)
    )
    for a, b in zip(once, thrice):
        torch.testing.assert_close(3 * a, b)


def test_no_tokens_have_no_loss_and_no_gradient():
    hidden, head, labels, teacher = drawn(tokens=0)
    loss, to_hidden, to_head = gradients(ours(hidden, head, labels, teacher, 8), hidden, head)
    assert loss == 0 and to_hidden.shape == (0, D) and torch.equal(to_head, torch.zeros(V, D))


def test_without_gradients_it_is_the_same_loss():
    hidden, head, *rest = drawn()
    expected = ours(hidden, head, *rest, 8)
    with torch.no_grad():
        assert torch.equal(ours(hidden, head, *rest, 8), expected)
    with torch.inference_mode():
        assert torch.equal(ours(hidden, head, *rest, 8), expected)


@pytest.mark.parametrize("frozen", [0, 1])
def test_what_is_frozen_gets_no_gradient_and_the_other_the_same(frozen):
    both = drawn()
    expected = gradients(ours(*both, 8), both[1 - frozen])
    both[frozen].requires_grad_(False)
    for a, b in zip(gradients(ours(*both, 8), both[1 - frozen]), expected):
        assert torch.equal(a, b)


def test_a_tied_head_gets_both_gradients():
    _, head, labels, teacher = drawn()
    ids = torch.arange(N)
    mine = gradients(ours(head[ids].tanh(), head, labels, teacher, 8), head)
    for a, b in zip(mine, gradients(naive(head[ids].tanh(), head, labels, teacher), head)):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_a_second_backward_is_an_error_and_not_a_wrong_number():
    hidden, head, *rest = drawn()
    loss = ours(hidden, head, *rest, 8)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


class Peak(TorchDispatchMode):
    """The most bytes of tensors made inside that were alive at once."""

    def __init__(self):
        super().__init__()
        self.alive, self.peak_bytes = {}, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        outputs = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(outputs):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.alive[storage._cdata] = (
                    torch.multiprocessing.reductions.StorageWeakRef(storage),
                    storage.nbytes(),
                )
        self.alive = {
            key: (weak, size) for key, (weak, size) in self.alive.items() if not weak.expired()
        }
        self.peak_bytes = max(self.peak_bytes, sum(size for _, size in self.alive.values()))
        return outputs


def peak(loss, hidden, head):
    with Peak() as tracked:
        gradients(loss(), hidden, head)
    return tracked.peak_bytes


def test_a_distillation_loss_takes_a_fraction_of_the_naive_ones_memory():
    tokens, vocab = 8192, 250
    hidden, head, labels, _ = drawn(tokens, 4, vocab)
    teacher_hidden, teacher_head = (
        torch.randn(tokens, 4),
        torch.randn(vocab, 4),
    )  # its logits are made on the way, by both

    def chunk_loss(logits, tokens):
        kl = losses.kl_loss(teacher_hidden[tokens] @ teacher_head.T, logits, 2.0)
        return losses.distillation_loss(kl, logits, labels[tokens], 0.5, 2.0)

    all_at_once = peak(
        lambda: naive(hidden, head, labels, teacher_hidden @ teacher_head.T), hidden, head
    )
    assert all_at_once > 24 * peak(
        lambda: chunked_loss.chunked_loss(hidden, head, chunk_loss), hidden, head
    )
