"""Gradients by central differences."""

import torch


def assert_gradient(loss, student, step=1e-5):
    """Compare a loss's gradient with central differences in float64 along every coordinate."""
    student = student.detach().double()
    leaf = student.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf), leaf)
    steps = step * torch.eye(student.numel(), dtype=torch.float64).view(-1, *student.shape)
    with torch.no_grad():
        differences = torch.stack(
            [(loss(student + each) - loss(student - each)) / (2 * step) for each in steps]
        )
    torch.testing.assert_close(gradient.flatten(), differences, rtol=1e-6, atol=1e-7)
