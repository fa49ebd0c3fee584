"""Contracts: the mean as fairseq's average_checkpoints.py defines it; refusals name the cause."""

import argparse
import os
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from admin_nmt.checkpoints import Checkpoint, average
from admin_nmt.checkpoints.averaging import (
    select_checkpoints,
)
from admin_nmt.checkpoints.settings import TRANSFORMER_FUNCTION_SETTINGS
from admin_nmt.cli.main import main
from admin_nmt.errors import UsageError, UserError


def averaged(paths):
    """The mean of checkpoint files, as what would be in its file."""
    return average([Checkpoint.open(path) for path in paths]).state


def checkpoint(model, arch="transformer", **rest):
    """A checkpoint in the form that fairseq saves."""
    config = {"model": argparse.Namespace(arch=arch), "task": {"source_lang": "de"}}
    return {"args": None, "cfg": config, "model": OrderedDict(model), **rest}


def reference_mean(models):
    """The definition, in exact Python numbers, one element at a time."""
    means = {}
    for name, first in models[0].items():
        columns = zip(*(model[name].flatten().tolist() for model in models), strict=True)
        if first.is_floating_point():
            flat = [sum(column) / len(models) for column in columns]
        else:
            flat = [sum(column) // len(models) for column in columns]
        means[name] = torch.tensor(flat, dtype=torch.float64).reshape(first.shape)
    return means


def write(folder, models, **rest):
    paths = [folder / f"checkpoint{number}.pt" for number in range(1, len(models) + 1)]
    for path, model in zip(paths, models, strict=True):
        torch.save(checkpoint(model, **rest), path)
    return paths


DTYPES = {
    torch.float32: (torch.float32, 1e-6),
    torch.float64: (torch.float64, 1e-14),
    torch.float16: (torch.float32, 1e-6),  # summed and saved in float32
    torch.bfloat16: (torch.float32, 1e-6),
    torch.int64: (torch.int64, 0),
    torch.int32: (torch.int32, 0),
    torch.uint8: (torch.uint8, 0),
}


@settings(max_examples=15, deadline=None)
@given(count=st.integers(1, 5), seed=st.integers(0, 10**6))
def test_mean_equals_the_definition_for_every_type(tmp_path_factory, count, seed):
    generator = torch.Generator().manual_seed(seed)
    models = []
    for _ in range(count):
        model = {}
        for dtype in DTYPES:
            values = torch.randn(3, 2, generator=generator) * 60
            model[str(dtype)] = (values.abs() if dtype == torch.uint8 else values).to(dtype)
        model["scalar"] = torch.tensor(seed % 7)
        models.append(model)
    paths = write(tmp_path_factory.mktemp("mean"), models)
    mean = averaged(paths)["model"]
    expected = reference_mean(models)
    assert list(mean) == list(models[0])
    for dtype, (saved_dtype, tolerance) in DTYPES.items():
        ours = mean[str(dtype)]
        assert ours.dtype == saved_dtype
        torch.testing.assert_close(
            ours.double(), expected[str(dtype)], rtol=tolerance, atol=tolerance * 100
        )
    assert mean["scalar"] == seed % 7


def test_negative_integers_round_down_and_small_types_do_not_overflow(tmp_path):
    models = [
        {"negative": torch.tensor([-3]), "byte": torch.tensor([200], dtype=torch.uint8)},
        {"negative": torch.tensor([0]), "byte": torch.tensor([251], dtype=torch.uint8)},
    ]
    mean = averaged(write(tmp_path, models))["model"]
    assert mean["negative"].item() == -2 and mean["byte"].item() == 225


def test_float16_sums_beyond_its_range_and_below_its_resolution(tmp_path):
    # In float16, 60000 + 60000 is infinite and 2048 + 1 is 2048.
    values = [[60000.0, 2048.0], [60000.0, 1.0]]
    models = [{"w": torch.tensor(value, dtype=torch.float16)} for value in values]
    mean = averaged(write(tmp_path, models))["model"]["w"]
    assert mean.tolist() == [60000.0, 1024.5]


def test_sum_is_bitwise_that_of_newest_to_oldest(tmp_path):
    # In float32, (1e8 + 1) - 1e8 = 0 but (1e8 - 1e8) + 1 = 1: the order is part of the result.
    models = [{"w": torch.tensor([value])} for value in (-1e8, 1.0, 1e8)]
    write(tmp_path, models)
    paths = select_checkpoints([tmp_path], num_epochs=3)
    expected = (torch.tensor(1e8) + torch.tensor(1.0) + torch.tensor(-1e8)) / 3
    assert averaged(paths)["model"]["w"].item() == expected.item()


def test_averaging_leaves_its_arguments_as_they_were(tmp_path):
    models = [{"w": torch.full((2,), value), "n": torch.tensor([3])} for value in (1.0, 4.0)]
    opened = [Checkpoint.open(path) for path in write(tmp_path, models)]
    assert average(opened).weights["w"].tolist() == [2.5, 2.5]
    for checkpoint, model in zip(opened, models, strict=True):
        assert all(torch.equal(checkpoint.weights[name], model[name]) for name in model)


def test_other_state_comes_from_the_first_file(tmp_path):
    for number in (1, 2):
        state = checkpoint({"w": torch.ones(1)}, extra_state={"epoch": number})
        torch.save(state, tmp_path / f"checkpoint{number}.pt")
    paths = select_checkpoints([tmp_path], num_epochs=2)
    assert averaged(paths)["extra_state"] == {"epoch": 2}
    assert averaged(paths[::-1])["extra_state"] == {"epoch": 1}


def test_the_moving_average_of_one_checkpoint_is_not_that_of_the_mean(tmp_path):
    extra = {"epoch": 1, "ema": {"w": torch.ones(1)}, "ema_fp32_params": {"w": torch.ones(1)}}
    paths = write(tmp_path, [{"w": torch.ones(1)}] * 2, extra_state=extra)
    assert averaged(paths)["extra_state"] == {"epoch": 1}


def test_tied_tensors_stay_tied_and_correct(tmp_path):
    def tied(value):
        shared = torch.full((100, 100), value)
        return {"encoder.embed": shared, "decoder.embed": shared, "decoder.out": shared}

    mean = averaged(write(tmp_path, [tied(1.0), tied(4.0)]))
    assert len({value.data_ptr() for value in mean["model"].values()}) == 1
    assert all(torch.equal(v, torch.full((100, 100), 2.5)) for v in mean["model"].values())
    Checkpoint(Path(), mean).save(tmp_path / "mean.pt")
    assert (tmp_path / "mean.pt").stat().st_size < 2 * 100 * 100 * 4


def test_tensors_tied_in_one_file_only_are_averaged_apart(tmp_path):
    shared = torch.ones(3)
    models = [
        {"a": shared, "b": shared, "c": shared},
        {"a": torch.full((3,), 3.0), "b": torch.full((3,), 5.0), "c": torch.full((3,), 3.0)},
    ]
    for order in (models, models[::-1]):
        mean = averaged(write(tmp_path, order))["model"]
        assert [mean[name][0].item() for name in "abc"] == [2.0, 3.0, 2.0]


def test_views_of_one_storage_are_different_tensors(tmp_path):
    def views(offset):
        storage = torch.arange(6.0) + offset
        return {"first": storage[:3], "last": storage[3:], "all": storage}

    mean = averaged(write(tmp_path, [views(0), views(10)]))["model"]
    assert mean["first"].tolist() == [5, 6, 7] and mean["last"].tolist() == [8, 9, 10]
    assert mean["all"].tolist() == [5, 6, 7, 8, 9, 10]


def test_files_from_before_the_zip_format_are_read(tmp_path):
    for number in (1, 2):
        torch.save(
            checkpoint({"w": torch.full((2,), float(number))}),
            tmp_path / f"{number}.pt", _use_new_zipfile_serialization=False,
        )  # fmt: skip
    mean = averaged([tmp_path / "1.pt", tmp_path / "2.pt"])
    assert mean["model"]["w"].tolist() == [1.5, 1.5]


def test_one_model_is_held_in_memory_whatever_the_number_of_checkpoints(tmp_path):
    size = 8 * 2**20
    paths = []
    for number in range(6):
        path = tmp_path / f"{number}.pt"
        torch.save(checkpoint({"w": torch.full((size,), float(number))}), path)
        paths.append(str(path))
    program = (
        "import sys; from admin_nmt.checkpoints import Checkpoint, average\n"
        "def field(name):\n"
        "    lines = open('/proc/self/status').read().splitlines()\n"
        "    return int([l for l in lines if l.startswith(name)][0].split()[1])\n"
        "before = field('RssAnon'); state = average([Checkpoint.open(p) for p in sys.argv[1:]]); after = field('RssAnon')\n"
        "print((after - before) * 1024, state.weights['w'][0].item())"
    )
    if not Path("/proc/self/status").exists():
        pytest.skip("needs Linux's /proc")
    output = subprocess.run(
        [sys.executable, "-c", program, *paths],
        capture_output=True, text=True, check=True, env=os.environ | {"ADMIN_NMT_AUTOLOAD": "0"},
    ).stdout.split()  # fmt: skip
    assert float(output[1]) == 2.5
    assert int(output[0]) < 1.5 * size * 4


def touch(folder, *names):
    for name in names:
        (folder / name).touch()


def test_last_checkpoints_are_chosen_by_number_up_to_the_bound(tmp_path):
    touch(tmp_path, "checkpoint2.pt", "checkpoint9.pt", "checkpoint10.pt", "checkpoint_best.pt")
    touch(tmp_path, "checkpoint_1_100.pt", "checkpoint_2_90.pt", "checkpoint_2_1000.pt")
    touch(tmp_path, "checkpoint_last.pt", "checkpoint11.pt.tmp", "xcheckpoint12.pt")

    def names(**options):
        return [path.name for path in select_checkpoints([tmp_path], **options)]

    assert names(num_epochs=2) == ["checkpoint10.pt", "checkpoint9.pt"]
    assert names(num_epochs=2, upper_bound=9) == ["checkpoint9.pt", "checkpoint2.pt"]
    assert names(num_updates=2) == ["checkpoint_2_1000.pt", "checkpoint_1_100.pt"]
    assert names(num_updates=2, upper_bound=100) == ["checkpoint_1_100.pt", "checkpoint_2_90.pt"]


def test_given_files_are_taken_in_the_given_order(tmp_path):
    assert select_checkpoints(["b.pt", "a.pt"]) == [Path("b.pt"), Path("a.pt")]


def test_too_few_checkpoints_are_counted(tmp_path):
    with pytest.raises(UserError, match=r"holds no checkpoints named checkpointE.pt$"):
        select_checkpoints([tmp_path], num_epochs=1)
    touch(tmp_path, "checkpoint1.pt", "checkpoint2.pt", "checkpoint_1_5.pt")
    with pytest.raises(UserError, match=r"--num-epoch-checkpoints 3: .* holds 2 checkpoints"):
        select_checkpoints([tmp_path], num_epochs=3)
    with pytest.raises(UserError, match=r"holds 1 .*E.pt up to --checkpoint-upper-bound 1$"):
        select_checkpoints([tmp_path], num_epochs=2, upper_bound=1)
    with pytest.raises(UserError, match=r"--num-update-checkpoints 2: .* named checkpoint_E_U.pt"):
        select_checkpoints([tmp_path], num_updates=2)


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        ([], {}, "--inputs"),
        (["."], {}, "is a folder"),
        (["a.pt"], {"upper_bound": 3}, "--checkpoint-upper-bound needs"),
        (["a.pt", "b.pt"], {"num_epochs": 2}, "chooses from one folder"),
        (["."], {"num_epochs": 0}, "--num-epoch-checkpoints 0"),
        (["."], {"num_epochs": 1, "num_updates": 1}, "exclude each other"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, names, options, message):
    with pytest.raises(UsageError, match=message):
        select_checkpoints([tmp_path / name for name in names], **options)


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot read folder .*nowhere"):
        select_checkpoints([tmp_path / "nowhere"], num_epochs=1)


BASE = {"a": torch.ones(2, 3), "b": torch.ones(2)}


@pytest.mark.parametrize(
    ("other", "arch", "message"),
    [
        ({"a": torch.ones(2, 3)}, "transformer", "it has no parameter b"),
        (BASE | {"c": torch.ones(1)}, "transformer", "parameter c is in .*2.pt only"),
        (BASE | {"a": torch.ones(3, 2)}, "transformer", r"a has shape \(3, 2\) instead of \(2, 3"),
        (BASE | {"b": torch.ones(2).long()}, "transformer", "parameter b has type torch.int64"),
        (BASE, "admin_transformer", "architecture admin_transformer instead of transformer"),
    ],
)
def test_checkpoints_of_different_models_are_refused(tmp_path, other, arch, message):
    torch.save(checkpoint(BASE), tmp_path / "1.pt")
    torch.save(checkpoint(other, arch), tmp_path / "2.pt")
    with pytest.raises(UserError, match=f"2.pt is not of the same model as .*1.pt: .*{message}"):
        averaged([tmp_path / "1.pt", tmp_path / "2.pt"])


def test_models_that_differ_in_settings_only_are_refused(tmp_path):
    """The weights of plain post-LN and DeepNorm have the same names and shapes."""
    for number, init_type in ((1, "default"), (2, "deepnorm"), (3, "default")):
        state = checkpoint(BASE, "admin_transformer")
        state["cfg"]["model"].init_type = init_type
        torch.save(state, tmp_path / f"{number}.pt")
    with pytest.raises(
        UserError, match=r"2.pt is not of .*: init_type deepnorm instead of default"
    ):
        averaged([tmp_path / "1.pt", tmp_path / "2.pt"])
    averaged([tmp_path / "1.pt", tmp_path / "3.pt"])


@pytest.mark.parametrize("name", TRANSFORMER_FUNCTION_SETTINGS)
def test_settings_of_fairseqs_that_no_shape_shows_are_compared(tmp_path, name):
    for number, value in ((1, "one"), (2, "other"), (3, "one")):
        state = checkpoint(BASE)
        setattr(state["cfg"]["model"], name, value)
        torch.save(state, tmp_path / f"{number}.pt")
    with pytest.raises(UserError, match=f"{name} other instead of one"):
        averaged([tmp_path / "1.pt", tmp_path / "2.pt"])
    averaged([tmp_path / "1.pt", tmp_path / "3.pt"])


def test_settings_of_hydras_stacks_are_compared(tmp_path):
    """`fairseq-hydra-train` keeps `encoder.attention_heads`, not `encoder_attention_heads`."""
    for number, heads in ((1, 4), (2, 8), (3, 4)):
        state = checkpoint(BASE)
        state["cfg"]["model"].encoder = {"attention_heads": heads}
        torch.save(state, tmp_path / f"{number}.pt")
    with pytest.raises(UserError, match="encoder_attention_heads 8 instead of 4"):
        averaged([tmp_path / "1.pt", tmp_path / "2.pt"])
    averaged([tmp_path / "1.pt", tmp_path / "3.pt"])


@pytest.mark.parametrize("content", ["missing", "cut off", "text", "no model", "no tensors"])
def test_files_that_are_no_checkpoints_are_refused_by_name(tmp_path, content):
    good, bad = tmp_path / "good.pt", tmp_path / "bad.pt"
    torch.save(checkpoint(BASE), good)
    if content == "cut off":
        bad.write_bytes(good.read_bytes()[:-200])
    elif content == "text":
        bad.write_text("not a checkpoint")
    elif content == "no model":
        torch.save({"weights": BASE}, bad)
    elif content == "no tensors":
        torch.save(checkpoint({"a": "text"}), bad)
    with pytest.raises(UserError, match=r"bad\.pt") as error:
        averaged([good, bad])
    assert "\n" not in str(error.value)


def test_foreign_objects_in_a_checkpoint_are_refused(tmp_path):
    torch.save(checkpoint(BASE, path=Path("x")), tmp_path / "bad.pt")
    with pytest.raises(UserError, match=r"refusing checkpoint .*bad.pt"):
        averaged([tmp_path / "bad.pt"])


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    output = tmp_path / "average.pt"
    output.write_bytes(b"old")

    def full_disk(state, stream):
        stream.write(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(UserError, match=r"cannot write .*average.pt: PytorchStreamWriter"):
        Checkpoint(Path(), checkpoint(BASE)).save(output)
    assert output.read_bytes() == b"old" and list(tmp_path.iterdir()) == [output]


def test_command_averages_a_real_run_and_refuses_in_one_line(tiny_run, tmp_path, capsys):
    output = tmp_path / "average.pt"
    output.write_text("overwritten")
    command = ["average", "--inputs", str(tiny_run / "checkpoints"), "--output", str(output)]
    for option, names in {
        "--num-epoch-checkpoints": ["checkpoint2.pt", "checkpoint1.pt"],
        "--num-update-checkpoints": ["checkpoint_2_12.pt", "checkpoint_1_4.pt"],
    }.items():
        assert main([*command, option, "2"]) == 0
        ours = load(output)
        theirs = [load(tiny_run / "checkpoints" / name) for name in names]
        expected = reference_mean([state["model"] for state in theirs])
        assert list(ours["model"]) == list(theirs[0]["model"])
        for name, value in ours["model"].items():
            torch.testing.assert_close(value.double(), expected[name], rtol=1e-6, atol=1e-7)
        assert ours["extra_state"]["train_iterator"] == theirs[0]["extra_state"]["train_iterator"]
    before = output.read_bytes()
    capsys.readouterr()
    assert main([*command, "--num-epoch-checkpoints", "3"]) == 1 and output.read_bytes() == before
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("admin-nmt average: error: --num-epoch-checkpoints 3")


def load(path):
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, weights_only=True)


@pytest.mark.parametrize(
    "name",
    [
        "a.pt", "./b.pt", "checkpoint_last.pt", "checkpoint_3_50.pt", "crash.pt",
        "checkpoint.best_bleu_30.5001200.pt", "checkpoint.best_loss_-0.100012.pt",
    ],
)  # fmt: skip
def test_an_output_that_training_or_averaging_needs_is_refused(tmp_path, capsys, name):
    for path in ("a.pt", "b.pt"):
        torch.save({"model": {"w": torch.ones(2)}, "args": None}, tmp_path / path)
    before = (tmp_path / "a.pt").read_bytes()
    inputs = [str(tmp_path / "a.pt"), str(tmp_path / "b.pt")]
    assert main(["average", "--inputs", *inputs, "--output", f"{tmp_path}/{name}"]) == 2
    said = capsys.readouterr().err
    assert "is a checkpoint of the training: give another name" in said and said.count("\n") == 1
    assert (tmp_path / "a.pt").read_bytes() == before and len(list(tmp_path.iterdir())) == 2
