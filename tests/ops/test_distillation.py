"""Word-level distillation, chunk by chunk and plainly, against the loops of the papers."""

from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from admin_nmt.ops import linear_loss
from admin_nmt.ops.distillation import Teacher, distillation_and_gradient_, distillation_loss
from admin_nmt.ops.label_smoothing import LabelSmoothing
from admin_nmt.ops.linear_loss import linear_cross_entropy, linear_distillation
from tests.reference import distillation as reference
from tests.support.losses import FUSED_LOSS

PAD = 1


def problem(
    shape: tuple[int, ...],
    D: int,
    V: int,
    D_t: int,
    seed: int = 0,
    device: str = "cpu",
    padding: float | None = None,
) -> tuple[list[Tensor], Tensor, list[Tensor]]:
    """Features, weight and bias of the student in float64; targets of which every fourth, or this
    share at random, is padding; the teacher's."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64).to(device)

    target = torch.randint(0, V, shape, generator=generator)
    if padding is None:
        target.view(-1)[::4] = PAD
    else:
        target[torch.rand(shape, generator=generator) < padding] = PAD
    student = [normal(*shape, D), normal(V, D), normal(V)]
    return student, target.to(device), [normal(*shape, D_t), normal(V, D_t), normal(V)]


def leaves(tensors: list[Tensor], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [tensor.detach().to(dtype).requires_grad_() for tensor in tensors]


def logits_of(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return (features @ weight.T + bias).flatten(0, -2)


@settings(deadline=None, max_examples=25)
@given(
    D_t=st.integers(1, 5),
    share=st.sampled_from([0.0, 0.3, 1.0]),
    temperature=st.sampled_from([0.7, 1.0, 2.5]),
    **FUSED_LOSS,
)
def test_equals_the_papers_written_as_loops(
    device: str,
    shape: tuple[int, ...],
    D: int,
    V: int,
    D_t: int,
    padding: float,
    chunk_tokens: int,
    over: str,
    epsilon: float,
    share: float,
    temperature: float,
    leaves_out: bool,
    seed: int,
) -> None:
    """Values and all gradients, padding left out as on a CPU and masked as on a GPU."""
    student, target, taught = problem(shape, D, V, D_t, seed, device, padding)
    ours, twin, plain = (leaves(student) for _ in range(3))
    smoothing = LabelSmoothing.of(epsilon, V, over)
    teacher = Teacher(*taught, share, temperature)
    with mock.patch.object(linear_loss, "_leaves_out", lambda _: leaves_out):
        found = linear_distillation(*ours, target, smoothing, teacher, PAD, chunk_tokens, True)
    logits = [logits_of(*tensors) for tensors in (twin, plain, taught)]
    loss, nll, kl = reference.objective(
        logits[0].cpu(), logits[2].cpu(), target.view(-1).tolist(), epsilon, over, share,
        temperature, PAD,
    )  # fmt: skip
    loss = loss + 0.0 * logits[0].sum().cpu()  # has a gradient without any token, too
    lprobs = [torch.log_softmax(x, dim=-1) for x in logits[1:]]
    same = distillation_loss(
        *lprobs, target.view(-1), smoothing, share, temperature, PAD, count_correct=True
    )
    keep = target.view(-1) != PAD
    right = (logits[0].argmax(-1) == target.view(-1)) & keep
    for sums in (found, same):
        assert not sums.nll.requires_grad and not sums.kl.requires_grad
        assert sums.loss.item() == pytest.approx(loss.item(), rel=1e-12)
        assert sums.nll.item() == pytest.approx(nll, rel=1e-12)
        assert sums.kl.item() == pytest.approx(kl, rel=1e-11)
        assert sums.correct is not None and sums.correct.item() == right.sum().item()
    for total in (found.loss, loss, same.loss):
        (0.7 * total).backward()
    for mine, theirs, third in zip(ours, twin, plain, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(third.grad, theirs.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_gradcheck(temperature: float) -> None:
    student, target, taught = problem((5,), D=3, V=6, D_t=2, seed=1)
    teacher, smoothing = Teacher(*taught, 0.4, temperature), LabelSmoothing.of(0.1, 6)

    def loss(*inputs: Tensor) -> Tensor:
        return linear_distillation(*inputs, target, smoothing, teacher, PAD, chunk_tokens=2).loss

    assert gradcheck(loss, tuple(leaves(student)))


def test_without_a_share_it_is_the_plain_loss_and_the_student_matches_itself() -> None:
    student, target, taught = problem((3, 4), D=3, V=9, D_t=4)
    smoothing = LabelSmoothing.of(0.1, 9)
    plain = linear_cross_entropy(*student, target, smoothing, PAD)
    none = linear_distillation(*student, target, smoothing, Teacher(*taught, 0.0), PAD)
    assert none.loss.item() == pytest.approx(plain.loss.item(), rel=1e-13)
    ours = leaves(student)
    itself = linear_distillation(*ours, target, smoothing, Teacher(*student, 1.0), PAD)
    assert itself.loss.item() == pytest.approx(0.0, abs=1e-12)
    itself.loss.backward()
    for tensor in ours:
        assert tensor.grad is not None and tensor.grad.abs().max() < 1e-13


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-5), (torch.bfloat16, 3e-2), (torch.float16, 5e-3)],
)
def test_lower_precision_stays_near_float64(
    device: str, dtype: torch.dtype, tolerance: float
) -> None:
    student, target, taught = problem((3, 5), D=16, V=23, D_t=12, seed=2, device=device)
    rounded = [[x.to(dtype).double() for x in tensors] for tensors in (student, taught)]
    ours, twin = leaves(rounded[0], dtype), leaves(rounded[0])
    teacher = Teacher(*(x.to(dtype) for x in rounded[1]), 0.5, 2.0)
    found = linear_distillation(
        *ours, target, LabelSmoothing.of(0.1, 23), teacher, PAD, chunk_tokens=4
    )
    loss, nll, kl = reference.objective(
        logits_of(*twin).cpu(), logits_of(*rounded[1]).cpu(), target.view(-1).tolist(), 0.1,
        "others", 0.5, 2.0, PAD,
    )  # fmt: skip
    assert found.loss.dtype == torch.float32
    assert found.loss.item() == pytest.approx(loss.item(), rel=tolerance)
    assert found.nll.item() == pytest.approx(nll, rel=tolerance)
    assert found.kl.item() == pytest.approx(kl, rel=tolerance)
    found.loss.backward()
    loss.backward()
    for mine, theirs in zip(ours, twin, strict=True):
        assert mine.grad is not None and theirs.grad is not None and mine.grad.dtype == dtype
        error = (mine.grad.double() - theirs.grad).abs().max() / theirs.grad.abs().max()
        assert error < tolerance


def test_masked_tokens_count_as_those_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where the number of tokens is not asked for; what stands at padding is anything."""
    student, target, taught = problem((4, 6), D=3, V=8, D_t=3, seed=3)
    student[0][target == PAD] = taught[0][target == PAD] = torch.nan
    smoothing, left, masked = LabelSmoothing.of(0.1, 8), leaves(student), leaves(student)
    teacher = Teacher(*taught, 0.5, 2.0)
    first = linear_distillation(*left, target, smoothing, teacher, PAD, 5)
    monkeypatch.setattr(linear_loss, "_leaves_out", lambda device: False)
    second = linear_distillation(*masked, target, smoothing, teacher, PAD, 5)
    assert first.loss.item() == pytest.approx(second.loss.item(), rel=1e-12)
    assert first.kl.item() == pytest.approx(second.kl.item(), rel=1e-12)
    first.loss.backward()
    second.loss.backward()
    for a, b in zip(left, masked, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-12)


def test_types_that_the_teacher_rules_out() -> None:
    logits = torch.zeros(1, 3, dtype=torch.float64)
    teacher = torch.tensor([[0.0, 0.0, -torch.inf]], dtype=torch.float64)
    target, smoothing = torch.tensor([0]), LabelSmoothing.of(0.0, 3)
    lprobs = torch.log_softmax(logits, dim=-1)
    plain = distillation_loss(lprobs, torch.log_softmax(teacher, -1), target, smoothing, 1.0)
    sums = distillation_and_gradient_(logits.clone(), teacher.clone(), target, smoothing, 1.0, 1.0)
    assert sums[0].item() == plain.loss.item() == pytest.approx(torch.log(torch.tensor(1.5)).item())


def test_per_token_losses_add_up() -> None:
    student, target, taught = problem((8,), D=3, V=5, D_t=3)
    lprobs = [torch.log_softmax(x @ w.T + b, dim=-1) for x, w, b in (student, taught)]
    smoothing = LabelSmoothing.of(0.1, 5)
    each = distillation_loss(*lprobs, target, smoothing, 0.5, 2.0, PAD, reduce=False)
    assert each.loss.shape == (8,) and not each.loss[target == PAD].any()
    total = distillation_loss(*lprobs, target, smoothing, 0.5, 2.0, PAD)
    assert each.loss.sum().item() == pytest.approx(total.loss.item())


def test_what_does_not_fit_is_refused() -> None:
    student, target, taught = problem((3,), D=3, V=5, D_t=3)
    smoothing = LabelSmoothing.of(0.1, 5)
    for wrong in (
        Teacher(taught[0][:2], *taught[1:], 0.5),
        Teacher(taught[0], taught[1][:4], taught[2][:4], 0.5),
    ):
        with pytest.raises(ValueError, match="the teacher's features"):
            linear_distillation(*student, target, smoothing, wrong, PAD)
