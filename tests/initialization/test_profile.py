"""The profile equals ADMIN's recurrence of variances, computed independently, and touches nothing else."""

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from admin_nmt.errors import UserError
from tests.reference import transformer as reference
from tests.support.models import one_sentence, population_variance, randomise, stock_state


def test_omegas_follow_the_recurrence(build: Callable[..., Any], batch: dict[str, Any]) -> None:
    """omega_1 = 1; omega_{i+1}^2 = Var[omega_i x_{i-1}] + Var[f_i(x_{i-1})], stacks apart."""
    from admin_nmt.initialization.profile import measure_profile

    model = build("--dropout", "0", "--share-all-embeddings")
    randomise(model, 5)
    pad = model.encoder.padding_idx
    sample = one_sentence(batch, 3, pad)
    profile = measure_profile(model, [sample], seed=1)

    expected: dict[str, float] = {}
    omega = {"encoder": 1.0, "decoder": 1.0}

    def residual(name: str, shortcut: Tensor, branch: Tensor) -> Tensor:
        stack = name.split(".")[0]
        expected[name] = omega[stack]
        scaled = omega[stack] * shortcut
        omega[stack] = math.sqrt(population_variance(scaled) + population_variance(branch))
        return scaled + branch

    reference.forward(
        stock_state(model),
        sample["net_input"]["src_tokens"][0].tolist(),
        sample["net_input"]["prev_output_tokens"][0].tolist(),
        4,
        (2, 2),
        pad,
        residual,
    )
    assert list(profile.sublayers) == list(expected)
    for name, value in expected.items():
        assert profile.sublayers[name].omega == pytest.approx(value, rel=1e-4), name
    assert profile.sublayers["encoder.layers.0.self_attn_residual"].omega == 1.0
    assert profile.sublayers["decoder.layers.0.self_attn_residual"].omega == 1.0


def test_variance_counts_padding(build: Callable[..., Any], batch: dict[str, Any]) -> None:
    from admin_nmt.initialization.profile import measure_profile

    model = build("--dropout", "0")
    seen: dict[str, float] = {}
    twin = copy.deepcopy(model).train()
    first = twin.encoder.layers[0].self_attn_residual
    first.register_forward_pre_hook(
        lambda module, inputs: seen.update(x=population_variance(inputs[1]))
    )
    with torch.no_grad():
        twin(**batch["net_input"])
    profile = measure_profile(model, [batch], seed=1)
    entry = profile.sublayers["encoder.layers.0.self_attn_residual"]
    assert entry.shortcut_variance == pytest.approx(seen["x"], rel=1e-5)


def test_dropout_is_on_and_the_seed_decides(
    build: Callable[..., Any], batch: dict[str, Any]
) -> None:
    from admin_nmt.initialization.profile import measure_profile

    model = build("--dropout", "0.3")
    same = [measure_profile(model, [batch], seed=4).sublayers for _ in range(2)]
    assert same[0] == same[1]
    other = measure_profile(model, [batch], seed=5).sublayers
    assert other != same[0]
    model.eval()  # the mode of the model does not matter
    assert measure_profile(model, [batch], seed=4).sublayers == same[0]
    assert not model.training


def test_measuring_leaves_model_and_random_state_alone(
    build: Callable[..., Any], batch: dict[str, Any]
) -> None:
    from admin_nmt.initialization.profile import measure_profile

    model = build("--dropout", "0.1")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(99)
    state = torch.get_rng_state()
    measure_profile(model, [batch], seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.omegas_ready
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_models_are_measured_in_float32(
    build: Callable[..., Any], batch: dict[str, Any], dtype: torch.dtype
) -> None:
    from admin_nmt.initialization.profile import apply_profile, measure_profile

    model = build("--dropout", "0")
    exact = measure_profile(model, [batch], seed=1)
    half = copy.deepcopy(model).to(dtype)
    rounded = measure_profile(half, [batch], seed=1)
    for name, entry in exact.sublayers.items():
        assert rounded.sublayers[name].omega == pytest.approx(entry.omega, rel=2e-2)
    apply_profile(half, rounded)
    for name, residual in half.residuals():
        if hasattr(residual, "omega"):
            assert residual.omega.dtype == dtype
            expected = torch.tensor(rounded.sublayers[name].omega).to(dtype)
            assert (residual.omega == expected).all()


def test_checkpointing_and_layer_drop_do_not_change_the_profile(
    build: Callable[..., Any], batch: dict[str, Any]
) -> None:
    from admin_nmt.initialization.profile import measure_profile

    plain = build("--dropout", "0.1")
    expected = measure_profile(plain, [batch], seed=1).sublayers
    for options in (
        ("--checkpoint-activations",),
        ("--encoder-layerdrop", "0.9", "--decoder-layerdrop", "0.9"),
    ):
        model = build("--dropout", "0.1", *options)
        model.load_state_dict(plain.state_dict())
        model.omegas_ready = False
        assert measure_profile(model, [batch], seed=1).sublayers == expected, options


def test_several_batches_are_averaged_in_the_square(
    build: Callable[..., Any], batch: dict[str, Any]
) -> None:
    from admin_nmt.initialization.profile import measure_profile

    model = build("--dropout", "0")
    pad = model.encoder.padding_idx
    samples = [one_sentence(batch, row, pad) for row in (0, 1)]
    each = [measure_profile(model, [sample], seed=1).sublayers for sample in samples]
    both = measure_profile(model, samples, seed=1).sublayers
    for name, entry in both.items():
        mean = (each[0][name].omega ** 2 + each[1][name].omega ** 2) / 2
        assert entry.omega**2 == pytest.approx(mean, rel=1e-6)


@pytest.fixture
def saved(build: Callable[..., Any], batch: dict[str, Any], tmp_path: Path) -> tuple[Any, Path]:
    """A model and the file of its profile."""
    from admin_nmt.initialization.profile import measure_profile, save_profile

    model = build()
    save_profile(measure_profile(model, [batch], seed=1), tmp_path / "profile.json")
    return model, tmp_path / "profile.json"


def test_saved_profile_sets_the_same_omegas(saved: tuple[Any, Path]) -> None:
    from admin_nmt.initialization.profile import apply_profile, load_profile

    model, path = saved
    profile = load_profile(path)
    apply_profile(model, profile)
    assert model.omegas_ready
    for name, residual in model.residuals():
        if hasattr(residual, "omega"):
            assert residual.omega.tolist() == pytest.approx(
                [profile.sublayers[name].omega] * residual.omega.numel()
            )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("encoder.layers.1.ffn_residual"), r"no entry for encoder\.layers\.1\.ffn"),
        (
            lambda s: s.update({"encoder.layers.7.ffn_residual": {"omega": 1}}),
            r"entry encoder\.layers\.7",
        ),
        (
            lambda s: s["encoder.layers.1.ffn_residual"].update(omega=[1.0, 2.0]),
            r"omega of encoder\.layers\.1\.ffn_residual has 2 numbers, the model 32",
        ),
        (
            lambda s: s["decoder.layers.0.self_attn_residual"].update(omega=1.5),
            r"decoder\.layers\.0\.self_attn_residual is 1\.5",
        ),
        (
            lambda s: s["encoder.layers.1.ffn_residual"].update(omega="big"),
            r"omega of encoder\.layers\.1\.ffn_residual is not a finite number",
        ),
    ],
)
def test_profile_of_another_model_is_refused_by_name(
    saved: tuple[Any, Path], change: Callable[[dict], Any], message: str
) -> None:
    from admin_nmt.initialization.profile import apply_profile, load_profile

    model, path = saved
    content = json.loads(path.read_text())
    change(content["sublayers"])
    path.write_text(json.dumps(content))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UserError, match=message):
        apply_profile(model, load_profile(path), f"profile {path}")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("init_type", "default", "--init-type default, and this model has admin"),
        ("encoder_embed_dim", 64, "--encoder-embed-dim 64, and this model has 32"),
        ("decoder_ffn_embed_dim", 7, "--decoder-ffn-embed-dim 7, and this model has "),
    ],
)
def test_profile_measured_on_another_width_or_scheme_is_refused(
    saved: tuple[Any, Path], key: str, value: object, message: str
) -> None:
    """Its names and the number of them fit; the variances do not."""
    from admin_nmt.initialization.profile import apply_profile, load_profile, model_sizes

    model, path = saved
    profile = load_profile(path)
    profile.measured |= model_sizes(model)
    apply_profile(model, profile)
    profile.measured[key] = value
    with pytest.raises(UserError, match=f"profile {path} was measured with {message}"):
        apply_profile(model, profile, f"profile {path}")


def test_other_json_is_refused(tmp_path: Path) -> None:
    from admin_nmt.initialization.profile import load_profile

    path = tmp_path / "profile.json"
    for text, message in (
        ("{}", "was not written by .admin-nmt profile."),
        ("{", "not valid JSON"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            load_profile(path)
    with pytest.raises(UserError, match="No such file"):
        load_profile(tmp_path / "missing.json")
