"""Folding on a stack written out by hand, in float64."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear

from admin_nmt.errors import UserError
from admin_nmt.initialization.folding import Sublayer, fold_stack

SIZE = 6
STACK = [
    Sublayer(f"{name}_residual", (f"{name}.in",), f"{name}.out", f"{name}.norm") for name in "abc"
]
State = dict[str, Tensor]


@pytest.fixture
def state() -> State:
    """Random maps and LayerNorms of three sublayers, and a LayerNorm before the first."""
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    state = {"embed.weight": normal(SIZE), "embed.bias": normal(SIZE)}
    for sublayer in STACK:
        for name in (*sublayer.inputs, sublayer.output, sublayer.layer_norm):
            shape = (SIZE,) if name == sublayer.layer_norm else (SIZE, SIZE)
            state[f"{name}.weight"] = normal(*shape)
            state[f"{name}.bias"] = normal(SIZE)
    return state


def omegas(number: int) -> list[Tensor]:
    """Of either sign, none near zero."""
    generator = torch.Generator().manual_seed(2)
    drawn = torch.randn(number, SIZE, generator=generator, dtype=torch.float64)
    return list(drawn.sign() * (0.3 + drawn.abs()))


def compute(state: State, factors: list[float | Tensor], x: Tensor, embedding_norm: bool) -> Tensor:
    """x_i = LN_i(omega_i * x_{i-1} + f_i(x_{i-1})), f_i a ReLU between two linear maps."""

    def norm(name: str, x: Tensor) -> Tensor:
        return layer_norm(x, (SIZE,), state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-12)

    x = norm("embed", x) if embedding_norm else x
    for sublayer, factor in zip(STACK, factors, strict=True):
        (first,) = sublayer.inputs
        inner = linear(x, state[f"{first}.weight"], state[f"{first}.bias"]).relu()
        branch = linear(inner, state[f"{sublayer.output}.weight"], state[f"{sublayer.output}.bias"])
        x = norm(sublayer.layer_norm, factor * x + branch)
    return x


@pytest.mark.parametrize("embedding_norm", [True, False])
def test_the_plain_stack_computes_the_same(state: State, embedding_norm: bool) -> None:
    """Without a LayerNorm in front, the first factor is a number."""
    factors: list[float | Tensor] = list(omegas(3))
    if not embedding_norm:
        factors[0] = 2.5
    before = {name: value.clone() for name, value in state.items()}
    folded = fold_stack(state, STACK, factors, "embed" if embedding_norm else None)
    x = torch.randn(20, SIZE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    expected = compute(state, factors, x, embedding_norm)
    found = compute(folded, [1.0] * 3, x, embedding_norm)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert (compute(state, [1.0] * 3, x, embedding_norm) - expected).abs().max() > 0.1
    assert all(torch.equal(state[name], value) for name, value in before.items())


def test_factors_that_cannot_be_folded_are_refused(state: State) -> None:
    first, *rest = omegas(3)
    with pytest.raises(
        UserError, match=r"a_residual, the first sublayer .* not one positive number"
    ):
        fold_stack(state, STACK, [first, *rest])
    with pytest.raises(UserError, match=r"a_residual, .* not one positive number"):
        fold_stack(state, STACK, [-2.0, *rest])
    for value, what in ((0.0, "zero"), (float("inf"), "not finite"), (float("nan"), "not finite")):
        bad = rest[1].clone()
        bad[:2] = value
        with pytest.raises(UserError, match=rf"2 of 6 components of c_residual\.omega are {what}"):
            fold_stack(state, STACK, [1.0, rest[0], bad])
    half = {name: value.half() for name, value in state.items()}
    for value, name in ((1e-6, r"c\.in"), (1e6, r"b\.norm")):
        with pytest.raises(
            UserError, match=rf"{name}\.weight would leave the range of torch\.float16"
        ):
            fold_stack(half, STACK, [1.0, rest[0], torch.full((SIZE,), value)])
