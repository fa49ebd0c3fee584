"""`admin-nmt average --keep-better`: the average of checkpoints, or the best one where that is better."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from admin_nmt.checkpoints import Checkpoint, average
from admin_nmt.cli.main import main
from admin_nmt.errors import UserError

TIED = "--share-all-embeddings"


@pytest.fixture(scope="module")
def model_file(checkpoint: Callable[..., Path]) -> Path:
    """A random model whose logits are linear in its embeddings."""
    return checkpoint(TIED)


@pytest.fixture
def run_folder(model_file: Path, tmp_path: Path) -> Callable[..., Path]:
    """`run_folder(best=X, epochs=(Y, Z))`: a training's folder with `model_file` in which the embeddings are
    multiplied by X in `checkpoint_best.pt` and by Y and Z in those of the epochs.

    Without embeddings (factor 0) all words are equally likely, which is better than random ones.
    """

    def write(best: float | None, epochs: tuple[float, float]) -> Path:
        folder = tmp_path / "run"
        folder.mkdir()
        names = {"best": best, "1": epochs[0], "2": epochs[1]}
        for name, factor in names.items():
            if factor is None:
                continue
            source = Checkpoint.open(model_file)
            tied = {v.data_ptr() for k, v in source.weights.items() if "embed_tokens" in k}
            scaled: dict[int, torch.Tensor] = {}
            weights = {
                key: scaled.setdefault(value.data_ptr(), value * factor)
                if value.data_ptr() in tied
                else value
                for key, value in source.weights.items()
            }
            updates = {"num_updates": 7 if name == "best" else int(name)}
            history = [source.state["optimizer_history"][0] | updates]
            state = dict(source.state) | {"model": weights, "optimizer_history": history}
            path = folder / (f"checkpoint_{name}.pt" if name == "best" else f"checkpoint{name}.pt")
            Checkpoint(source.path, state).save(path)
        return folder

    return write


def by_fairseq(path: Path, build: Callable[..., Any], task: Any) -> float:
    """`nll_loss` of the validation set as fairseq's trainer logs it, in bits."""
    from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion

    model = build(TIED).eval()
    model.load_state_dict(dict(Checkpoint.open(path).weights))
    criterion = LabelSmoothedCrossEntropyCriterion(task, sentence_avg=False, label_smoothing=0.1)
    task.load_dataset("valid")
    batches = task.get_batch_iterator(task.dataset("valid"), max_tokens=100).next_epoch_itr()
    with torch.no_grad():
        logs = [criterion(model, sample)[2] for sample in batches]
    assert len(logs) > 1
    nll, tokens = (sum(float(log[name]) for log in logs) for name in ("nll_loss", "ntokens"))
    return nll / tokens / math.log(2)


def keep(folder: Path, data: Path, *options: str) -> tuple[int, Path]:
    """Exit code and output of the command."""
    output = folder.parent / "kept.pt"
    command = ["average", "--inputs", str(folder), "--num-epoch-checkpoints", "2", "--cpu"]
    command += ["--output", str(output), "--keep-better", str(data)]
    return main([*command, *options]), output


# The mean of random embeddings and their negatives is 0, of equal ones themselves.
@pytest.mark.parametrize(
    ("best", "epochs", "kept"),
    [(0.0, (1.0, 1.0), "checkpoint_best.pt"), (1.0, (1.0, -1.0), "average")],
)
def test_the_better_one_is_kept(
    best: float, epochs: tuple[float, float], kept: str, run_folder: Callable[..., Path],
    data_bin: Path, build: Callable[..., Any], task: Any, capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:  # fmt: skip
    folder = run_folder(best=best, epochs=epochs)
    paths = [folder / "checkpoint2.pt", folder / "checkpoint1.pt"]
    mean = average([Checkpoint.open(path) for path in paths])
    mean.save(tmp_path / "mean.pt")
    code, output = keep(folder, data_bin)
    assert code == 0
    result = Checkpoint.open(output)
    record = result.state["keep_better"]
    expected = {
        "average": by_fairseq(tmp_path / "mean.pt", build, task),
        "checkpoint_best.pt": by_fairseq(folder / "checkpoint_best.pt", build, task),
    }
    assert record["nll_loss"] == pytest.approx(expected, rel=1e-5)
    assert min(expected.values()) == pytest.approx(math.log2(len(task.target_dictionary)))
    assert record["kept"] == kept and record["averaged"] == list(map(str, paths))
    line = capsys.readouterr().out.splitlines()[-1]
    for name, value in expected.items():
        assert f"{name} {value:.3f}" in line
    assert line.endswith("kept: the average" if kept == "average" else f"kept: {kept}")
    source = mean if kept == "average" else Checkpoint.open(folder / kept)
    assert result.num_updates == source.num_updates
    assert result.state.keys() == mean.state.keys() | {"keep_better"}
    assert all(torch.equal(value, source.weights[name]) for name, value in result.weights.items())


def test_a_best_checkpoint_in_16_bits_gets_the_form_of_an_average(
    run_folder: Callable[..., Path], data_bin: Path
) -> None:
    folder = run_folder(best=0.0, epochs=(1.0, 1.0))
    best = Checkpoint.open(folder / "checkpoint_best.pt")
    halves = {name: value.bfloat16() for name, value in best.weights.items()}
    Checkpoint(best.path, dict(best.state) | {"model": halves}).save(best.path)
    result = Checkpoint.open(keep(folder, data_bin)[1])
    assert result.state["keep_better"]["kept"] == "checkpoint_best.pt"
    assert {value.dtype for value in result.weights.values()} == {torch.float32}


def test_a_model_that_has_diverged_is_not_kept(
    run_folder: Callable[..., Path], data_bin: Path
) -> None:
    from admin_nmt.evaluation.better_checkpoint import keep_better

    folder = run_folder(best=1.0, epochs=(math.nan, 1.0))
    best, first, second = (folder / f"checkpoint{name}.pt" for name in ("_best", "1", "2"))
    assert not keep_better([second, first], best, data_bin, cpu=True).is_average
    assert keep_better([second], first, data_bin, cpu=True).is_average
    with pytest.raises(UserError, match=r"the loss of .*checkpoint1\.pt is NaN or infinite, and"):
        keep_better([first], first, data_bin, cpu=True)


def test_a_model_that_searches_with_other_parameters_is_compared(
    checkpoint: Callable[..., Path], data_bin: Path, tmp_path: Path
) -> None:
    """fairseq's `fconv` drops its weight normalisation when it is made ready to search."""
    sizes = ("--encoder-layers", "[(32, 3)] * 2", "--decoder-layers", "[(32, 3)] * 2")
    for name in ("_best", "1", "2"):
        checkpoint("--arch", "fconv", *sizes).rename(tmp_path / f"checkpoint{name}.pt")
    code, output = keep(tmp_path, data_bin)
    assert code == 0
    losses = Checkpoint.open(output).state["keep_better"]["nll_loss"]
    assert losses["average"] == pytest.approx(losses["checkpoint_best.pt"])


def test_what_cannot_be_compared_is_refused_in_one_line(
    run_folder: Callable[..., Path], checkpoint: Callable[..., Path], data_bin: Path,
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = run_folder(best=None, epochs=(1.0, 1.0))

    def refused(*options: str) -> tuple[int, str]:
        code, output = keep(folder, data_bin, *options)
        assert not output.exists()
        (line,) = capsys.readouterr().err.splitlines()
        return code, line

    best = folder / "checkpoint_best.pt"
    code, line = refused()
    assert code == 1 and f"--keep-better: {folder} has no checkpoint_best.pt" in line
    code, line = refused("--inputs", str(folder / "checkpoint1.pt"))
    assert code == 2 and "give one folder to --inputs" in line
    checkpoint(TIED, "--init-type", "default").rename(best)
    code, line = refused()
    assert code == 1 and f"{best} is not of the same model" in line
    (tmp_path / "empty").mkdir()
    best.write_bytes((folder / "checkpoint1.pt").read_bytes())
    code, line = refused("--keep-better", str(tmp_path / "empty"))
    assert code == 1 and str(tmp_path / "empty") in line
    before = best.read_bytes()
    code, line = refused("--output", str(best))
    assert code == 2 and "is an input" in line and best.read_bytes() == before
