"""Bad input at fairseq's front door: one clear line, the right exit code, no traceback."""

import argparse
import errno
import io
import os
import pickle
import subprocess
from pathlib import Path
from typing import IO, Any

import pytest
import torch

from admin_nmt.errors import UsageError, UserError
from admin_nmt.host import checkpoints, data, errors
from tests.support.in_process import run_fairseq
from tests.support.programs import run_program
from tests.support.training import COMMON, train_here


def error_line(result: subprocess.CompletedProcess[str]) -> str:
    """The single error line of a failed program; fails the test if there is a traceback."""
    assert result.returncode == 1, result.stderr[-2000:]
    assert "Traceback" not in result.stdout + result.stderr
    return result.stderr.strip().splitlines()[-1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that looks binarised for de-en, without any content."""
    data = tmp_path / "data"
    data.mkdir()
    for name in ("train.de-en.de.idx", "train.de-en.en.idx", "dict.de.txt", "dict.en.txt"):
        (data / name).touch()
    return data


def test_binarised_folder_is_accepted(folder: Path) -> None:
    data.check_data(folder, "de", "en")
    data.check_data(folder, "en", "de")
    data.check_data(folder, None, None)


def test_text_lines_need_only_dictionaries_and_data_any_implementation(tmp_path: Path) -> None:
    """A folder as it comes with a published model, and `fairseq-preprocess --dataset-impl raw`."""
    for language in ("de", "en"):
        (tmp_path / f"dict.{language}.txt").touch()
    data.check_data(tmp_path, "de", "en")
    with pytest.raises(UserError, match=r"or give --source-lang and --target-lang$"):
        data.check_data(tmp_path, None, None)
    (tmp_path / "train.de-en.de").touch()
    data.check_data(tmp_path, None, None)
    (tmp_path / "dict.pt-br.txt").touch()
    data.check_data(tmp_path, "pt-br", "en")


def test_missing_folder_file_and_raw_text_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="missing does not exist"):
        data.check_data(tmp_path / "missing", "de", "en")
    (tmp_path / "file").write_text("text")
    with pytest.raises(UserError, match="is a file"):
        data.check_data(tmp_path / "file", "de", "en")
    (tmp_path / "train.de").write_text("text")
    with pytest.raises(UserError, match="fairseq-preprocess"):
        data.check_data(tmp_path, "de", "en")


def test_other_language_pair_is_named_with_what_is_there(folder: Path) -> None:
    with pytest.raises(UserError, match=r"de-fr is not in .*holds de-en"):
        data.check_data(folder, "de", "fr")


def test_missing_dictionary_is_named(folder: Path) -> None:
    (folder / "dict.en.txt").unlink()
    with pytest.raises(UserError, match=r"dict\.en\.txt is missing"):
        data.check_data(folder, "de", "en")


def test_other_exceptions_keep_their_traceback() -> None:
    assert errors.describe(ValueError("a bug of ours")) is None
    assert errors.describe(UserError("text")) == "text"
    assert errors.describe(PermissionError(13, "Permission denied", "/x")) == (
        "/x: Permission denied"
    )


def test_failures_of_fairseq_that_say_what_is_wrong_are_one_line() -> None:
    """The texts are those of fairseq 0.12."""
    cases = [
        (FileExistsError("bin/dict.de.txt"), "bin/dict.de.txt exists: delete it, or give another"),
        (
            AssertionError("Sentences lengths should not exceed max_tokens=8"),
            "longer than --max-tokens 8 (or --max-tokens-valid): give a larger number",
        ),
        (
            Exception(
                "Size of sample #3 is invalid (=(np.int64(1101), 0)) since max_positions=(1024, "
                "1024), skip this example with --skip-invalid-size-inputs-valid-test"
            ),
            "sentence 3 (counted from 0) has (1101, 0) tokens, and the model reads at most (1024, 1",
        ),
        (
            RuntimeError(
                "Cannot resume training due to dataloader mismatch, please report this to the "
                "fairseq developers. You can relaunch training with `--reset-dataloader` and it "
                "should work."
            ),
            "further inside its epoch than this training's epochs have batches: give the data, --max",
        ),
        (
            AssertionError("world size is 2 but have 0 available devices"),
            "train-multi-gpu.sh --cpu --procs 2 starts them",
        ),
        (
            AssertionError(
                "Optimizer does not match; please reset the optimizer (--reset-optimizer). "
                "FairseqRAdam vs FP16Optimizer"
            ),
            "by a training with FairseqRAdam, and this one has FP16Optimizer: give the --criterion",
        ),
        (
            ValueError("Unsupported optimizer: FairseqFusedAdam"),
            "this --optimizer (FusedAdam) has no update for weights of 16 bits alone: give",
        ),
        (
            ValueError("--finetune-from-model a b.pt does not exist"),
            "--finetune-from-model a b.pt does not exist",
        ),
    ]
    for error, text in cases:
        assert text in str(errors.describe(error))
    sizes = "\tsize mismatch for {}.embed_tokens.weight: copying a param with shape torch.Size([48, 32]) from "
    sizes += "checkpoint, the shape in current model is torch.Size([{}, {}])."
    load = "Error(s) in loading state_dict for AdminTransformerModel:\n"
    other = errors.describe(RuntimeError(load + sizes.format("encoder", 34, 32)))
    assert str(other).startswith("the checkpoint knows 48 words, the data 34: use the data that")
    assert errors.describe(RuntimeError(load + sizes.format("encoder", 48, 64))) is None
    assert errors.describe(AssertionError("something else")) is None


def test_going_on_with_another_optimizer_state_is_one_line(data_bin: Path, tmp_path: Path) -> None:
    """fairseq and PyTorch raise exceptions of their own for what a resumed training changes."""

    def line(*options: str, updates: int = 2) -> str | None:
        try:
            train_here(data_bin, *COMMON, "--save-dir", tmp_path, "--max-update", updates, *options)
        except Exception as error:
            return errors.describe(error)
        return None

    assert line("--admin-freeze-omega", updates=1) is None
    assert "--admin-freeze-omega, for example" in str(line())
    rdrop = line("--admin-freeze-omega", "--criterion", "label_smoothed_cross_entropy_rdrop")
    assert "by a training with AdminLabelSmoothedCrossEntropy" in str(rdrop)
    assert line("--reset-optimizer") is None


def test_going_on_from_a_file_that_is_not_there_or_with_another_scheduler_is_one_line(
    data_bin: Path, tmp_path: Path
) -> None:
    own = ("--save-dir", tmp_path / "run")
    other = tmp_path / "other.pt"
    with pytest.raises(UserError, match=f"--restore-file {other} does not exist"):
        train_here(data_bin, *COMMON, *own, "--max-update", 1, "--restore-file", other)
    last = tmp_path / "run" / "checkpoint_last.pt"
    first = (*COMMON, *own, "--lr-scheduler", "fixed", "--restore-file", last)
    train_here(data_bin, *first, "--max-update", 1)  # its own, at the first start
    for scheduler in ("inverse_sqrt", "reduce_lr_on_plateau"):
        changed = (*COMMON, *own, "--lr-scheduler", scheduler, "--max-update", 2)
        with pytest.raises(UserError, match=r"the --lr-scheduler that it had, or --reset-lr"):
            train_here(data_bin, *changed)
    train_here(data_bin, *changed, "--reset-lr-scheduler")


def test_processes_of_torchrun_do_not_train_each_alone(
    data_bin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fairseq's default on a machine with one GPU or none is one process, whatever torchrun says."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(
        UsageError, match=r"2 processes.* each would train alone: give --distributed"
    ):
        train_here(data_bin, *COMMON, "--save-dir", tmp_path, "--max-update", 1)
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_noticed_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fairseq import checkpoint_utils

    free = type("Usage", (), {"free": 1000})()
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda path: free)
    with pytest.raises(UserError, match="disk full"):
        checkpoint_utils.torch_persistent_save(
            {"model": {"w": torch.zeros(10000)}}, str(tmp_path / "checkpoint.pt")
        )
    assert list(tmp_path.iterdir()) == []
    # Three names of one table of 800 bytes, which is written once.
    shared = torch.zeros(200)
    tied = {"a": shared, "b": shared, "c": shared.view(10, 20)}
    checkpoint_utils.torch_persistent_save({"model": tied}, str(tmp_path / "tied.pt"))
    assert torch.load(tmp_path / "tied.pt", weights_only=True)["model"]["c"].shape == (10, 20)
    part = torch.zeros(10000)[:10]  # PyTorch writes all of what it is a part of
    with pytest.raises(UserError, match=r"disk full.* 0\.0 MiB are free; free some space"):
        checkpoint_utils.torch_persistent_save({"w": part}, str(tmp_path / "part.pt"))


def test_nothing_is_left_of_a_checkpoint_for_which_the_disk_did_not_suffice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fairseq import checkpoint_utils
    from fairseq.file_io import PathManager

    def half(source: object, target: str) -> None:
        Path(target).write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device", str(source))

    def partial(obj: object, stream: IO[bytes]) -> None:
        stream.write(b"half")
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            raise RuntimeError("unexpected pos 64 vs 0")  # noqa: B904  (as PyTorch does)

    (tmp_path / "checkpoint1.pt").write_text("whole")
    monkeypatch.setattr("shutil.copyfile", half)
    monkeypatch.setattr(checkpoint_utils.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(torch, "save", partial)
    last = str(tmp_path / "checkpoint_last.pt")
    for write in (
        lambda: PathManager.copy(str(tmp_path / "checkpoint1.pt"), last, overwrite=True),
        lambda: checkpoint_utils.torch_persistent_save({}, last),
    ):
        with pytest.raises(UserError, match=f"disk full: {last} cannot be written; free some"):
            write()
        assert [path.name for path in tmp_path.iterdir()] == ["checkpoint1.pt"]


@pytest.mark.parametrize("failing", [1, 2, 5, 12])
def test_a_checkpoint_is_whole_after_an_error_that_heals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """Write number `failing` finds no space, once."""
    from fairseq import checkpoint_utils
    from fairseq.file_io import PathManager

    writes = 0
    opened = PathManager.open

    def failing_once(path: str, mode: str) -> IO[bytes]:
        stream = opened(path, mode, buffering=0)
        write = stream.write

        class Stream(io.RawIOBase):
            def writable(self) -> bool:
                return True

            def write(self, data: Any) -> int:
                nonlocal writes
                writes += 1
                if writes == failing:
                    write(bytes(data)[:10])
                    raise OSError(errno.ENOSPC, "No space left on device")
                return write(data)

            def close(self) -> None:
                stream.close()
                super().close()

        return Stream()  # type: ignore[return-value]

    monkeypatch.setattr(PathManager, "open", staticmethod(failing_once))
    monkeypatch.setattr(checkpoints.time, "sleep", lambda seconds: None)
    model = {"w": torch.arange(90000.0), "v": torch.ones(3)}
    path = tmp_path / "checkpoint_last.pt"
    checkpoint_utils.torch_persistent_save({"model": model}, str(path))
    assert writes > failing
    found = torch.load(path, weights_only=True)["model"]
    assert all(torch.equal(found[name], value) for name, value in model.items())
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_last.pt"]


def training(data: Path, *options: str) -> None:
    run_fairseq("fairseq-train", data, "--arch", "admin_transformer_tiny", *options)


def test_training_refuses_missing_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--cpu", "--max-tokens", "100", "--optimizer", "radam", "--save-dir", str(tmp_path))
    with pytest.raises(SystemExit) as leave:
        training(tmp_path / "none", *options)
    assert leave.value.code == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"fairseq-train: error: data folder {tmp_path / 'none'} does not exist"
    )


def test_training_refuses_an_unknown_init_type(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leave:
        training(folder, "--init-type", "magic")
    assert leave.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "argument --init-type: invalid choice: 'magic'" in line and "admin-log" in line


def test_generation_refuses_a_hostile_checkpoint_without_running_it(
    folder: Path, tmp_path: Path
) -> None:
    marker = tmp_path / "ran"

    class Hostile:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(marker),)

    path = tmp_path / "hostile.pt"
    torch.save({"model": {}, "args": argparse.Namespace(), "extra": Hostile()}, path)
    result = run_program("fairseq-generate", folder, "--path", path, "--cpu", check=False)
    assert "refusing checkpoint" in error_line(result)
    assert "posix.mkdir" in error_line(result)
    assert not marker.exists()
    with pytest.raises(FileExistsError):  # the payload would have worked
        marker.mkdir()
        with path.open("rb"):
            pickle.loads(pickle.dumps(Hostile()))


def test_traceback_comes_back_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of training, and of the programs whose exceptions come to Python's hook."""
    monkeypatch.setenv("ADMIN_NMT_TRACEBACK", "1")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        training(tmp_path / "none", "--cpu", "--max-tokens", "100", "--optimizer", "radam")
    seen: list[BaseException] = []
    error = UserError("text")
    errors._excepthook(lambda kind, error, traceback: seen.append(error))(UserError, error, None)
    assert seen == [error]


def test_wrong_usage_has_exit_code_two() -> None:
    assert UsageError("x").exit_code == 2
    assert UserError("x").exit_code == 1


def test_a_crash_file_that_cannot_be_written_hides_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """fairseq writes `crash.pt` where gradients are NaN, before it says so."""

    def full(self: object, filename: str, extra_state: dict[str, Any]) -> None:
        raise UserError("disk full")

    save = checkpoints._crash_as_far_as_possible(full)
    save(None, "run/crash.pt", {})
    assert "run/crash.pt could not be written: UserError: disk full" in caplog.text
    with pytest.raises(UserError, match="disk full"):
        save(None, "run/checkpoint_last.pt", {})
