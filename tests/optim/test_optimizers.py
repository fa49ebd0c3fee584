"""RAdam against PyTorch's, in full and half precision; both optimizers through fairseq."""

from argparse import Namespace
from collections.abc import Callable
from typing import Any

import pytest
import torch

from admin_nmt.errors import UsageError
from admin_nmt.optim.options import parse_betas
from admin_nmt.optim.radam import RAdam, rectification

OPTIONS: dict[str, Any] = {
    "lr": 1e-2, "betas": (0.9, 0.98), "eps": 1e-8, "weight_decay": 0.1,
    "decoupled_weight_decay": True,
}  # fmt: skip


def parameters(dtype: torch.dtype = torch.float32) -> list[torch.nn.Parameter]:
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(s).to(dtype)) for s in ((3, 4), (5,), (2, 2, 2))]


def set_gradients(step: int, *groups: list[torch.nn.Parameter]) -> None:
    for number, same in enumerate(zip(*groups, strict=True)):
        torch.manual_seed(100 * step + number)
        gradient = torch.randn(same[0].shape)
        for parameter in same:
            parameter.grad = gradient.to(parameter.dtype)


@pytest.mark.parametrize(("beta2", "eps"), [(0.98, 1e-8), (0.999, 1e-8), (0.98, 0.1)])
def test_step_equals_pytorchs_radam(beta2: float, eps: float) -> None:
    """Before and after the variance becomes tractable (the sixth step)."""
    ours, theirs = parameters(), parameters()
    options = OPTIONS | {"betas": (0.9, beta2), "eps": eps}
    optimizers = RAdam(ours, **options), torch.optim.RAdam(theirs, **options)
    for step in range(40):
        set_gradients(step, ours, theirs)
        for optimizer in optimizers:
            optimizer.step()
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_rectification_is_the_papers() -> None:
    """Algorithm 2: rho_inf = 2/(1-b2)-1 = 99; at t=5 rho_t = 4.92 <= 5, at t=6 it is above."""
    assert [rectification(t, 0.98) is None for t in (1, 5, 6, 7)] == [True, True, False, False]
    rho = 99 - 2 * 6 * 0.98**6 / (1 - 0.98**6)
    expected = ((rho - 4) * (rho - 2) * 99 / (95 * 97 * rho)) ** 0.5
    assert rectification(6, 0.98) == pytest.approx(expected)
    assert rectification(10_000, 0.98) == pytest.approx(1.0)


def test_parameters_without_gradient_or_with_other_ages_are_served() -> None:
    ours, theirs = parameters(), parameters()
    optimizers = RAdam(ours, **OPTIONS), torch.optim.RAdam(theirs, **OPTIONS)
    for step in range(20):
        set_gradients(step, ours, theirs)
        if step % 3 == 0:
            ours[1].grad = theirs[1].grad = None
        for optimizer in optimizers:
            optimizer.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_steps_like_float32_rounded(dtype: torch.dtype) -> None:
    ours = parameters(dtype)
    optimizer = RAdam(ours, **OPTIONS)
    for step in range(12):
        copies = [torch.nn.Parameter(p.detach().float()) for p in ours]
        reference = torch.optim.RAdam(copies, **OPTIONS)
        for parameter, copy in zip(ours, copies, strict=True):
            if optimizer.state[parameter]:
                reference.state[copy] = {
                    name: value.clone() for name, value in optimizer.state[parameter].items()
                }
        set_gradients(step, ours, copies)
        for parameter, copy in zip(ours, copies, strict=True):
            copy.grad = parameter.grad.float()
        optimizer.step()
        reference.step()
        for parameter, copy in zip(ours, copies, strict=True):
            assert optimizer.state[parameter]["exp_avg_sq"].dtype == torch.float32
            # One unit in the last place: the fused and the plain step round differently.
            torch.testing.assert_close(parameter.float(), copy.to(dtype).float(), rtol=8e-3, atol=0)


def test_state_survives_saving(tmp_path: Any) -> None:
    ours = parameters()
    optimizer = RAdam(ours, **OPTIONS)
    for step in range(8):
        set_gradients(step, ours)
        optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    copies = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    resumed = RAdam(copies, **OPTIONS)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    set_gradients(9, ours, copies)
    optimizer.step()
    resumed.step()
    assert all(torch.equal(a, b) for a, b in zip(ours, copies, strict=True))


def test_moments_of_a_checkpoint_follow_the_parameters(parse: Callable[..., Any]) -> None:
    """`--memory-efficient-bf16` on a GPU: fairseq hands over the checkpoint's moments where it read
    them, on the CPU. PyTorch's device without memory stands for the GPU."""
    from fairseq.optim.fp16_optimizer import MemoryEfficientFP16Optimizer

    cfg = parse("--optimizer", "radam", "--memory-efficient-bf16", "--bf16")
    trained = parameters(torch.bfloat16)
    there = [torch.nn.Parameter(p.detach().to("meta")) for p in trained]
    first, resumed = (
        MemoryEfficientFP16Optimizer.build_optimizer(cfg, own) for own in (trained, there)
    )
    for step in range(8):
        set_gradients(step, trained)
        first.step()
    resumed.load_state_dict(first.state_dict())
    for parameter in there:
        parameter.grad = torch.zeros_like(parameter)
    resumed.step()
    for parameter in there:
        state = resumed.optimizer.state[parameter]
        assert state["exp_avg"].device == state["exp_avg_sq"].device == parameter.device
        assert state["exp_avg"].dtype == state["exp_avg_sq"].dtype == torch.float32
        assert state["step"] == 9


@pytest.mark.parametrize("name", ["radam", "admin_fused_adam", "adam"])
def test_fairseq_builds_the_optimizer_from_its_options(
    parse: Callable[..., Any], name: str
) -> None:
    from fairseq import optim

    cfg = parse("--optimizer", name, "--adam-betas", "(0.8, 0.95)", "--weight-decay", "0.3")
    own = parameters()
    optimizer = optim.build_optimizer(cfg.optimizer, own)
    group = optimizer.optimizer.param_groups[0]
    assert tuple(group["betas"]) == (0.8, 0.95)
    assert group["weight_decay"] == 0.3 and group["lr"] == 1e-3
    assert optimizer.supports_flat_params
    if name == "radam":
        assert isinstance(optimizer.optimizer, RAdam)
        assert optimizer.supports_memory_efficient_fp16


def test_fused_adam_steps_like_fairseqs_adam(parse: Callable[..., Any]) -> None:
    from fairseq import optim

    ours, theirs = parameters(), parameters()
    options = ("--adam-betas", "(0.9, 0.98)", "--weight-decay", "0.1")
    optimizers = [
        optim.build_optimizer(parse("--optimizer", name, *options).optimizer, own)
        for name, own in (("admin_fused_adam", ours), ("adam", theirs))
    ]
    for step in range(20):
        set_gradients(step, ours, theirs)
        for optimizer in optimizers:
            optimizer.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("option", ["--use-old-adam", "--fp16-adam-stats"])
def test_options_that_choose_fairseqs_adam_are_refused(
    parse: Callable[..., Any], option: str
) -> None:
    from fairseq import optim

    cfg = parse("--optimizer", "admin_fused_adam", option)
    with pytest.raises(UsageError, match=f"{option} does not go with --optimizer admin_fused_adam"):
        optim.build_optimizer(cfg.optimizer, parameters())


@pytest.mark.parametrize("value", ["0.9", "(0.9, b)", "(0.9, 1.0)", [0.9, 0.98, 0.99], None])
def test_bad_betas_are_refused(value: Any) -> None:
    with pytest.raises(UsageError, match="--adam-betas"):
        parse_betas(value)


def test_web_toolkit_apex_is_not_mistaken_for_nvidias(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from admin_nmt.optim.fused_adam import nvidia_fused_adam

    monkeypatch.setitem(sys.modules, "apex", Namespace(__path__=[], __name__="apex"))
    assert nvidia_fused_adam() is None


class ApexLike(torch.optim.Optimizer):
    """What NVIDIA apex's FusedAdam keeps: the number of steps in the group, moments without it."""

    def __init__(self, params: Any, **options: Any) -> None:
        options.pop("adam_w_mode")
        super().__init__(params, options | {"bias_correction": True})

    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            group["step"] = group["step"] + 1 if "step" in group else 1
            assert group["bias_correction"]
            for p in group["params"]:
                for name in ("exp_avg", "exp_avg_sq"):
                    self.state[p].setdefault(name, torch.zeros_like(p)).add_(p.grad)


@pytest.mark.parametrize("with_apex", [True, False], ids=["apex to PyTorch", "PyTorch to apex"])
def test_fused_adam_goes_on_from_the_other_implementation(
    parse: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, with_apex: bool
) -> None:
    from fairseq import optim

    from admin_nmt.optim import fused_adam

    def build(apex: bool) -> Any:
        monkeypatch.setattr(fused_adam, "nvidia_fused_adam", lambda: ApexLike if apex else None)
        monkeypatch.setattr(torch.Tensor, "is_cuda", apex)
        cfg = parse("--optimizer", "admin_fused_adam").optimizer
        return optim.build_optimizer(cfg, parameters())

    def take_steps(optimizer: Any) -> None:
        for number in range(3):
            set_gradients(number, optimizer.params)
            optimizer.optimizer.step()

    before = build(with_apex)
    take_steps(before)
    after = build(not with_apex)
    after.load_state_dict(before.state_dict(), {"lr": 0.5})
    state = after.optimizer.state_dict()
    counts = [entry.get("step") for entry in state["state"].values()]
    assert (
        counts == [3] * 3
        if with_apex
        else state["param_groups"][0]["step"] == 3 and not any(counts)
    )
    assert state["param_groups"][0]["lr"] == 0.5
    for one, other in zip(before.params, after.params, strict=True):
        torch.testing.assert_close(
            after.optimizer.state[other]["exp_avg"], before.optimizer.state[one]["exp_avg"]
        )
    monkeypatch.undo()
    take_steps(after)


def test_apex_without_kernels_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from admin_nmt.optim.fused_adam import nvidia_fused_adam

    for available in (True, False):
        applier = Namespace(available=available)
        for name, held in (
            ("apex", {}), ("apex.optimizers", {"FusedAdam": ApexLike}),
            ("apex.multi_tensor_apply", {"multi_tensor_applier": applier}),
        ):  # fmt: skip
            monkeypatch.setitem(sys.modules, name, Namespace(__path__=[], __name__=name, **held))
        assert nvidia_fused_adam() is (ApexLike if available else None)
