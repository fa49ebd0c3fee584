"""The profile equals ADMIN's recurrence of variances, computed independently, and touches nothing else."""

import copy
import json
import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from admin_nmt.cli.main import main
from admin_nmt.errors import UserError
from tests.reference import transformer as reference
from tests.support.exact import LENGTHS, WIDTHS, convert, padded_batch, sized
from tests.support.models import population_variance, randomise, stock_state
from tests.support.training import COMMON, train, weights


@pytest.fixture(scope="module")
def cfg(parse: Callable[..., Any]) -> Any:
    """Settings of a model whose only dropout is `--dropout`."""
    return parse("--attention-dropout", "0", "--activation-dropout", "0").model


def halved(x: Tensor) -> Tensor:
    """What dropout of 0.5 may do: it drops every other component."""
    return x * torch.tensor([2.0, 0.0], dtype=x.dtype).repeat(x.shape[-1] // 2)


def recurrence(
    model: Any, sample: dict[str, Any], heads: int, dropout: Callable[[Tensor], Tensor]
) -> dict[str, tuple[float, float, float]]:
    """omega_1 = 1; omega_{i+1}^2 = Var[omega_i x_{i-1}] + Var[f_i(x_{i-1})], stacks apart, over all
    elements of a batch: omega_i and both variances of each sublayer."""
    records = {}
    omega = {"encoder": 1.0, "decoder": 1.0}

    def residual(name: str, shortcut: Tensor, branch: Tensor) -> Tensor:
        stack = name.split(".")[0]
        scaled = omega[stack] * shortcut
        variances = population_variance(scaled), population_variance(branch)
        records[name] = (omega[stack], *variances)
        omega[stack] = math.sqrt(sum(variances))
        return scaled + branch

    net_input = sample["net_input"]
    layers = len(model.encoder.layers), len(model.decoder.layers)
    reference.forward_batch(
        stock_state(model), net_input["src_tokens"], net_input["prev_output_tokens"], heads, layers,
        model.encoder.padding_idx, residual, dropout=dropout,
        rounded=next(model.parameters()).dtype,
    )  # fmt: skip
    return records


@settings(deadline=None, max_examples=20)
@given(
    layers=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    width=WIDTHS,
    batches=st.lists(LENGTHS, min_size=1, max_size=2),
    dropped=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    seed=st.integers(0, 99),
)
def test_profile_equals_the_float64_reference(
    cfg: Any,
    task: Any,
    layers: tuple[int, int],
    width: tuple[int, int],
    batches: list[list[tuple[int, int]]],
    dropped: bool,
    dtype: torch.dtype,
    seed: int,
) -> None:
    """Every sublayer's omega and variances, padding and dropout included, averaged over the batches.

    Weights are rounded to the model's type and measured in float32, so one tolerance fits all types.
    """
    from admin_nmt.initialization.profile import measure_profile

    cfg = sized(cfg, layers, *width)
    cfg.dropout = 0.5 if dropped else 0.0
    torch.manual_seed(seed)
    model = task.build_model(cfg)
    randomise(model, seed)
    convert(model, dtype)
    samples = [
        padded_batch(task.source_dictionary, lengths, seed + number)
        for number, lengths in enumerate(batches)
    ]
    with mock.patch("admin_nmt.modules.dropout.dropout", lambda x, p: halved(x) if p else x):
        profile = measure_profile(model, samples, seed)
    dropout = halved if dropped else lambda x: x
    passes = [recurrence(model, sample, width[1], dropout) for sample in samples]
    assert list(profile.sublayers) == list(passes[0])
    for name, entry in profile.sublayers.items():
        omegas, shortcuts, branches = zip(*(records[name] for records in passes), strict=True)
        squared = sum(omega**2 for omega in omegas) / len(passes)
        assert entry.omega == pytest.approx(math.sqrt(squared), rel=1e-4), name
        assert entry.shortcut_variance == pytest.approx(sum(shortcuts) / len(passes), rel=1e-4)
        assert entry.branch_variance == pytest.approx(sum(branches) / len(passes), rel=1e-4)
    for stack in ("encoder", "decoder"):
        assert next(iter(profile.stack(stack).values())).omega == 1.0
    assert profile.measured["num_batches"] == len(batches)


@pytest.mark.parametrize("init_type", ["admin", "deepnorm", "rezero", "default"])
def test_variances_are_those_of_the_two_terms_that_are_added(
    build: Callable[..., Any], batch: dict[str, Any], init_type: str
) -> None:
    """Under every scheme, with the factors that the model has: watching, not setting."""
    from admin_nmt.initialization.profile import measure_profile

    model = build("--dropout", "0", "--init-type", init_type)
    randomise(model, 3, also=("omega", "alpha"))
    expected = {}

    def watch(name: str, residual: Any) -> None:
        def record(module: Any, inputs: tuple[Tensor, Tensor], total: Tensor) -> None:
            branch, shortcut = inputs
            if init_type == "rezero":
                branch = branch * module.alpha
            elif module.factor is not None:
                shortcut = shortcut * module.factor
            torch.testing.assert_close(total, shortcut + branch)
            expected[name] = population_variance(shortcut), population_variance(branch)

        residual.register_forward_hook(record)

    twin = copy.deepcopy(model).train()
    for name, residual in twin.residuals():
        watch(name, residual)
    with torch.no_grad():
        twin(**batch["net_input"])
    model.omegas_ready = True  # watched as they are
    profile = measure_profile(model, [batch], seed=1)
    assert profile.sublayers.keys() == expected.keys()
    for name, entry in profile.sublayers.items():
        found = entry.shortcut_variance, entry.branch_variance
        assert found == pytest.approx(expected[name], rel=1e-4), name


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
def test_omegas_are_set_in_the_type_of_the_model(
    build: Callable[..., Any], batch: dict[str, Any], dtype: torch.dtype
) -> None:
    from admin_nmt.initialization.profile import apply_profile, measure_profile

    model = build("--dropout", "0").to(dtype)
    profile = measure_profile(model, [batch], seed=1)
    apply_profile(model, profile)
    for name, residual in model.residuals():
        if hasattr(residual, "omega"):
            assert residual.omega.dtype == dtype
            expected = torch.tensor(profile.sublayers[name].omega).to(dtype)
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


def test_what_cannot_be_measured_is_refused(build: Callable[..., Any], batch: Any) -> None:
    from admin_nmt.initialization.profile import measure_profile, profile_batches

    model = build()
    with torch.no_grad():
        model.encoder.layers[1].fc2.weight[0, 0] = float("nan")
    with pytest.raises(UserError, match=r"not finite at encoder\.layers\.1\.ffn_residual"):
        measure_profile(model, [batch], seed=1)
    for empty in (SimpleNamespace(frozen_batches=[]), SimpleNamespace()):
        with pytest.raises(UserError, match="no training batches to profile on"):
            profile_batches(empty, 1, 1, lambda batch: batch)


def test_profile_batches_are_drawn_without_repeating_one() -> None:
    from admin_nmt.initialization.profile import profile_batches

    batches = [[i, i + 10] for i in range(5)]
    epoch_itr = SimpleNamespace(
        frozen_batches=batches, dataset=list(range(0, -20, -1)), collate_fn=tuple
    )
    prepared = {(-i, -j) for i, j in batches}

    def draw(number: int, seed: int = 1) -> list[Any]:
        return profile_batches(epoch_itr, number, seed, lambda batch: batch)

    for number in (1, 3, 5, 9):
        found = draw(number)
        assert len(found) == len(set(found)) == min(number, 5)
        assert set(found) <= prepared
        assert draw(number) == found
    assert any(draw(3, seed) != draw(3) for seed in (2, 3, 4))


def test_noise_of_the_profiles_sentences_is_not_the_trainings() -> None:
    """fairseq's denoising task draws it from PyTorch's generator."""
    from admin_nmt.initialization.profile import profile_batches

    class Noisy:
        def __getitem__(self, index: int) -> float:
            return torch.rand(()).item()

    epoch_itr = SimpleNamespace(frozen_batches=[[0, 1]], dataset=Noisy(), collate_fn=tuple)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    (batch,) = profile_batches(epoch_itr, 1, 1, lambda batch: batch)
    assert batch[0] != batch[1]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("several", [False, True], ids=["train", "train and train1"])
def test_the_command_measures_what_a_training_with_its_options_sets(
    data_bin: Path, tmp_path: Path, several: bool
) -> None:
    """The first batches of that training, and its initial weights."""
    data = tmp_path / "data"
    shutil.copytree(data_bin, data)
    if several:
        for path in data_bin.glob("train.*"):
            shutil.copy(path, data / path.name.replace("train", "train1"))
    options = ("--admin-profile-batches", "2", "--warmup-init-lr", "0")
    train(data, tmp_path / "run", 1, *options)
    output = tmp_path / "profile.json"
    assert main(["profile", str(data), *COMMON, *options, "--output", str(output)]) == 0
    measured = json.loads(output.read_text())["sublayers"]
    omegas = {k: v for k, v in weights(tmp_path / "run").items() if k.endswith(".omega")}
    assert omegas
    for name, omega in omegas.items():
        expected = torch.full_like(omega, measured[name.removesuffix(".omega")]["omega"])
        torch.testing.assert_close(omega, expected, rtol=1e-6, atol=0)


def test_training_sets_what_profiling_its_batches_measures(
    parse: Callable[..., Any],
    task: Any,
    data_bin: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An update with a learning rate of 0 leaves the weights as they were measured."""
    from fairseq import utils

    from admin_nmt.initialization.profile import measure_profile, profile_batches

    with caplog.at_level(logging.INFO):
        train(data_bin, tmp_path, 1, "--admin-profile-batches", "3", "--warmup-init-lr", "0")
    assert "measured on 3 batch(es)" in caplog.text
    trained = weights(tmp_path)
    model = task.build_model(parse(*COMMON).model)
    model.load_state_dict(trained)
    model.omegas_ready = False
    epoch_itr = task.get_batch_iterator(
        dataset=task.dataset("train"), max_tokens=300, required_batch_size_multiple=8, seed=3,
        disable_iterator_cache=True,
        max_positions=utils.resolve_max_positions(task.max_positions(), model.max_positions()),
    )  # fmt: skip
    profile = measure_profile(model, profile_batches(epoch_itr, 3, 3, lambda batch: batch), seed=3)
    omegas = {name: value for name, value in trained.items() if name.endswith(".omega")}
    assert len(omegas) == len(profile.sublayers) - 2
    for name, omega in omegas.items():
        expected = torch.full_like(omega, profile.sublayers[name.removesuffix(".omega")].omega)
        torch.testing.assert_close(omega, expected, rtol=1e-6, atol=0)
        assert not (omega == 1).any()


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
        *(
            (
                lambda s, omega=omega: s["encoder.layers.1.ffn_residual"].update(omega=omega),
                r"omega of encoder\.layers\.1\.ffn_residual is not a finite number",
            )
            for omega in ("big", True, math.inf, [], None)
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
        ('{"format": "admin_nmt profile", "version": 1, "sublayers": []}', "is damaged: make it"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            load_profile(path)
    with pytest.raises(UserError, match="No such file"):
        load_profile(tmp_path / "missing.json")
