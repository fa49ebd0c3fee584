"""The initialisation schemes against their papers' numbers, and all of them in training."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from admin_nmt.initialization.analytic import omega_const, omega_log
from admin_nmt.initialization.deepnorm import alpha_beta
from admin_nmt.initialization.registry import SCHEMES
from admin_nmt.initialization.scheme import Depth


@pytest.mark.parametrize(("n", "omega"), [(12, 2.017), (36, 3.041), (120, 4.922), (200, 6.07)])
def test_logarithmic_omega_has_the_published_values(n: int, omega: float) -> None:
    assert round(omega_log(n), 2 if n == 200 else 3) == omega
    assert omega_const(n) == pytest.approx(n**0.5)


@pytest.mark.parametrize(("cross", "decoder"), [((), 3), (("--no-cross-attention",), 2)])
@pytest.mark.parametrize(
    ("init_type", "omega"), [("admin-log", omega_log), ("admin-const", omega_const)]
)
def test_analytic_omegas_are_those_of_the_sublayers_of_each_stack(
    build: Callable[..., Any],
    init_type: str,
    omega: Callable[[int], float],
    cross: tuple[str, ...],
    decoder: int,
) -> None:
    """Of 2N and 3M sublayers, or 2M without encoder-decoder attention; the first is a constant."""
    sizes = ("--encoder-layers", "4", "--decoder-layers", "1", *cross)
    residuals = dict(build("--init-type", init_type, *sizes).residuals())
    for stack, number in (("encoder", 8), ("decoder", decoder)):
        first, *others = (r for name, r in residuals.items() if name.startswith(stack))
        assert first.constant == pytest.approx(omega(number)) and len(others) == number - 1
        for residual in others:
            torch.testing.assert_close(residual.omega, torch.full((32,), omega(number)))


def test_deepnorm_constants_are_the_papers() -> None:
    depth = Depth(18, 6)
    assert alpha_beta("encoder", depth) == pytest.approx(
        (0.81 * (18**4 * 6) ** 0.0625, 0.87 * (18**4 * 6) ** -0.0625)
    )
    assert alpha_beta("decoder", depth) == pytest.approx((18**0.25, 72**-0.25))


@pytest.mark.parametrize("layer_drop", ["0", "0.9"])
def test_deepnorm_scales_all_but_queries_and_keys(
    build: Callable[..., Any], layer_drop: str
) -> None:
    model = build(
        "--init-type", "deepnorm", "--encoder-embed-dim", "128", "--encoder-ffn-embed-dim", "256",
        "--encoder-layerdrop", layer_drop, "--decoder-layerdrop", layer_drop,
    )  # fmt: skip
    for stack in ("encoder", "decoder"):
        alpha, beta = alpha_beta(stack, Depth(2, 2))  # type: ignore[arg-type]
        for index in range(2):
            layer = getattr(model, stack).layers[index]
            assert layer.ffn_residual.constant == alpha
            attentions = [layer.self_attn] + ([layer.encoder_attn] if stack == "decoder" else [])
            weights = [(layer.fc1.weight, beta), (layer.fc2.weight, beta)]
            for attention in attentions:
                weights += [(attention.out_proj.weight, beta)]
                for name, (weight, _) in attention.projections().items():
                    weights.append((weight, beta if name == "v" else 1.0))
            for weight, gain in weights:
                expected = gain * math.sqrt(2 / sum(weight.shape))  # Xavier normal
                # 16,384 draws or more: the standard deviation is within 3 %.
                assert weight.std().item() == pytest.approx(expected, rel=0.03)


def test_first_residual_of_a_stack_is_never_a_vector(build: Callable[..., Any]) -> None:
    for init_type in ("admin", "admin-log", "admin-const"):
        residuals = dict(build("--init-type", init_type).residuals())
        for stack, count in (("encoder", 4), ("decoder", 6)):
            own = [r for name, r in residuals.items() if name.startswith(stack)]
            assert len(own) == count
            assert own[0].constant is not None
            assert all(r.constant is None for r in own[1:])


def test_rezero_starts_as_the_identity_without_layer_norm(
    build: Callable[..., Any], batch: dict[str, Any]
) -> None:
    model = build("--init-type", "rezero").eval()
    net_input = batch["net_input"]
    out = model.encoder(net_input["src_tokens"], net_input["src_lengths"])["encoder_out"][0]
    embedded, _ = model.encoder.forward_embedding(net_input["src_tokens"])
    hidden = net_input["src_tokens"].eq(model.encoder.padding_idx)
    expected = embedded.masked_fill(hidden[..., None], 0).transpose(0, 1)
    assert torch.equal(out, expected)
    assert not any("layer_norm" in name for name in model.state_dict())


def train(model: Any, batch: dict[str, Any], updates: int = 3) -> list[float]:
    """Losses of a few updates with RAdam."""
    from admin_nmt.optim.radam import RAdam

    optimizer = RAdam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(updates):
        logits = model(**batch["net_input"])[0]
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), batch["target"].flatten(), ignore_index=1
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("init_type", [*SCHEMES, "pre-LN"])
def test_every_scheme_trains(
    build: Callable[..., Any], batch: dict[str, Any], init_type: str
) -> None:
    from admin_nmt.initialization.profile import apply_profile, measure_profile

    options = ["--init-type", init_type]
    if init_type == "pre-LN":
        options = [
            "--init-type",
            "default",
            "--encoder-normalize-before",
            "--decoder-normalize-before",
        ]
    model = build(*options)
    assert model.omegas_ready == (init_type != "admin")
    if not model.omegas_ready:
        apply_profile(model, measure_profile(model, [batch], seed=1))
    losses = train(model, batch, 8)
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[-1] < losses[0]


def test_frozen_omegas_stay_and_trained_ones_move(
    build: Callable[..., Any], batch: dict[str, Any]
) -> None:
    for options, moves in (((), True), (("--admin-freeze-omega",), False)):
        model = build("--init-type", "admin-log", *options)
        before = {n: r.omega.clone() for n, r in model.residuals() if hasattr(r, "omega")}
        train(model, batch)
        after = {n: r.omega for n, r in model.residuals() if hasattr(r, "omega")}
        changed = [not torch.equal(before[name], after[name]) for name in before]
        assert all(changed) if moves else not any(changed)


@pytest.mark.slow
def test_200_layers_build_profile_and_take_finite_updates(
    build: Callable[..., Any], batch: dict[str, Any]
) -> None:
    from admin_nmt.initialization.profile import apply_profile, measure_profile

    model = build(
        "--encoder-layers", "100", "--decoder-layers", "100", "--encoder-embed-dim", "16",
        "--decoder-embed-dim", "16", "--encoder-ffn-embed-dim", "16",
        "--decoder-ffn-embed-dim", "16", "--encoder-attention-heads", "2",
        "--decoder-attention-heads", "2", "--share-all-embeddings",
    )  # fmt: skip
    profile = measure_profile(model, [batch], seed=1)
    apply_profile(model, profile)
    assert len(profile.sublayers) == 500
    omegas = [entry.omega for entry in profile.stack("encoder").values()]
    assert omegas == sorted(omegas) and omegas[-1] > 3
    losses = train(model, batch, 8)
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[-1] < losses[0]
    assert all(torch.isfinite(p).all() for p in model.parameters())
