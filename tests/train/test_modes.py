"""Precision, accumulation, checkpointing, layer drop: omegas are set before anything copies them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.training import require_learning, run_training


def omegas(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {n: v.float() for n, v in state["model"].items() if n.endswith(".omega")}


@pytest.fixture(scope="module")
def profiled(parse: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Omegas after one update of learning rate 0 in float32: those of the profile."""
    folder = tmp_path_factory.mktemp("profiled")
    return omegas(run_training(parse, folder, "--max-update", "1", "--lr", "0"))


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ((), 0.0),
        (("--fp16",), 2e-2),
        (("--bf16",), 2e-2),
        (("--memory-efficient-fp16",), 2e-2),
        (("--memory-efficient-bf16",), 2e-2),
        (("--checkpoint-activations",), 0.0),
        (("--update-freq", "3"), 0.0),
        (("--encoder-layerdrop", "0.5", "--decoder-layerdrop", "0.5"), 0.0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_omegas_of_the_profile_survive_the_optimizer(
    parse: Callable[..., Any], tmp_path: Path, profiled: dict, options: tuple, tolerance: float
) -> None:
    """With learning rate 0 the checkpoint must hold the profile: fairseq's fp16 and bf16
    optimizers copy the parameters when they are built and write their copies back."""
    state = run_training(parse, tmp_path, "--max-update", "2", "--lr", "0", *options)
    found = omegas(state)
    assert found.keys() == profiled.keys() and len(found) == 2 * 2 + 3 * 2 - 2
    for name, value in profiled.items():
        assert torch.isfinite(found[name]).all()
        assert found[name].min() == found[name].max() != 1.0
        torch.testing.assert_close(found[name], value, rtol=tolerance, atol=0)


@pytest.mark.parametrize("precision", ["--fp16", "--bf16", "--memory-efficient-fp16"])
def test_half_precision_learns(parse: Callable[..., Any], tmp_path: Path, precision: str) -> None:
    require_learning(parse, tmp_path, precision, "--fp16-init-scale", "4")


def test_given_profile_is_used_and_a_wrong_one_refused(
    parse: Callable[..., Any], tmp_path: Path, profiled: dict
) -> None:
    import json

    from admin_nmt.errors import UserError

    names = [name.removesuffix(".omega") for name in profiled]
    first = ["encoder.layers.0.self_attn_residual", "decoder.layers.0.self_attn_residual"]
    content = {
        "format": "admin_nmt profile",
        "version": 1,
        "measured": {},
        "sublayers": {name: {"omega": 1.0 if name in first else 2.5} for name in names + first},
    }
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(content))
    options = ("--max-update", "1", "--lr", "0", "--admin-profile", str(path))
    found = omegas(run_training(parse, tmp_path / "given", *options))
    assert all((value == 2.5).all() for value in found.values())
    with pytest.raises(UserError, match=rf"profile {path} has no entry for encoder\.layers\.2"):
        run_training(parse, tmp_path / "deeper", *options, "--encoder-layers", "3")


def test_fine_tuning_keeps_the_omegas_of_the_model(
    parse: Callable[..., Any], tmp_path: Path, profiled: dict
) -> None:
    first = run_training(parse, tmp_path / "first", "--max-update", "3", "--lr", "1e-2")
    tuned = run_training(
        parse, tmp_path / "tuned", "--max-update", "1", "--lr", "0", "--seed", "6",
        "--finetune-from-model", str(tmp_path / "first" / "checkpoint_last.pt"),
    )  # fmt: skip
    for name, value in omegas(first).items():
        assert torch.equal(omegas(tuned)[name], value)
        assert not torch.equal(value, profiled[name])


def test_loss_curve_with_omega_one_is_fairseqs(
    parse: Callable[..., Any], build: Callable[..., Any], task: Any
) -> None:
    """20 updates from the same weights, dropout 0, with fairseq's criterion, optimizer and batches.

    Bound 1e-5 relative: float32 rounding of differently fused products, grown over 20 steps.
    """
    from fairseq import optim

    sizes = (
        "--encoder-layers 2 --decoder-layers 2 --encoder-embed-dim 32 --decoder-embed-dim 32 "
        "--encoder-ffn-embed-dim 64 --decoder-ffn-embed-dim 64 --encoder-attention-heads 4 "
        "--decoder-attention-heads 4 --dropout 0 --share-all-embeddings --optimizer adam "
        "--criterion label_smoothed_cross_entropy --label-smoothing 0.1"
    ).split()
    stock = build(*sizes, "--arch", "transformer")
    ours = build(*sizes, seed=2)
    ours.load_state_dict({name: value.clone() for name, value in stock.state_dict().items()})
    for _, residual in ours.residuals():
        if hasattr(residual, "omega"):
            assert (residual.omega == 1).all()
            residual.omega.requires_grad_(False)
    cfg = parse(*sizes)
    criterion = task.build_criterion(cfg.criterion)
    # fairseq keeps one iterator a data set, whatever the size of batches asked for.
    batches = task.get_batch_iterator(
        task.dataset("train"), max_tokens=150, seed=1, disable_iterator_cache=True
    )
    losses: list[list[float]] = []
    for model in (stock, ours):
        optimizer = optim.build_optimizer(
            cfg.optimizer, [p for p in model.parameters() if p.requires_grad]
        )
        model.train()
        losses.append([])
        iterator = batches.next_epoch_itr(shuffle=False, set_dataset_epoch=False)
        for sample in (2 * list(iterator))[:20]:  # the training set is ten batches
            loss, sample_size, _ = criterion(model, sample)
            optimizer.zero_grad()
            optimizer.backward(loss / sample_size)
            optimizer.step()
            losses[-1].append(loss.item() / sample_size)
    assert len(losses[0]) == 20 and losses[0][-1] < losses[0][0]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
