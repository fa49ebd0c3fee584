"""The log reader: every format of fairseq's log gives the same curves."""

import json
from pathlib import Path

import pytest

from admin_nmt.analysis.training_log import Curve, minutes_at, parse_log, parse_settings, read_curve
from admin_nmt.errors import UserError

PREFIX = "2026-11-27 11:15:32 | INFO | "
HYDRAS_PREFIX = "[2026-11-27 11:15:32,123][fairseq_cli.train][INFO] - "
WITHIN = {"loss": "7.441", "ppl": "125.89", "lr": "0.0002", "train_wall": "1", "wall": "6"}
EPOCH = {"loss": "7.3", "bsz": "30", "wall": "12"}
VALID = {"loss": "6.966", "ppl": "124.5", "bleu": "0.01"}


def json_lines(prefix: str) -> list[str]:
    """One line of each kind under `--log-format json`."""

    def line(tag: str, names: str, stats: dict[str, str], update: int) -> str:
        record = {
            names + key: value for key, value in (stats | {"num_updates": f"{update}"}).items()
        }
        return (f"{prefix}{tag} | " if prefix else "") + json.dumps({"epoch": 1} | record) + "\n"

    return [
        line("train_inner", "", WITHIN, 5),
        line("valid", "valid_", VALID, 6),
        line("train", "train_", EPOCH, 6),
    ]


def simple_lines(prefix: str) -> list[str]:
    """The same under `--log-format simple`."""

    def start(tag: str) -> str:
        return f"{prefix}{tag} | " if prefix else ""

    within = ", ".join(f"{k}={v}" for k, v in (WITHIN | {"num_updates": "5"}).items())
    valid, epoch = (
        " | ".join(f"{k} {v}" for k, v in (stats | {"num_updates": "6"}).items())
        for stats in (VALID, EPOCH)
    )
    return [
        f"{start('train_inner')}epoch 001:      5 / 6 {within}\n",
        f"{start('valid')}epoch 001 | valid on 'valid' subset | {valid}\n",
        f"{start('train')}epoch 001 | {epoch}\n",
    ]


@pytest.mark.parametrize("prefix", [PREFIX, ""], ids=["terminal", "log-file"])
@pytest.mark.parametrize("lines", [json_lines, simple_lines], ids=["json", "simple"])
def test_every_format_gives_the_same_curves(lines, prefix: str) -> None:  # type: ignore[no-untyped-def]
    noise = ["  (encoder): AdminTransformerEncoder(\n", f"{PREFIX}fairseq.trainer | done | at 3\n"]
    assert parse_log([*noise, *lines(prefix), *noise]).curves == {
        "loss": Curve([5], [7.441]), "ppl": Curve([5], [125.89]), "lr": Curve([5], [0.0002]),
        "wall": Curve([5], [6.0]), "valid_loss": Curve([6], [6.966]),
        "valid_ppl": Curve([6], [124.5]), "valid_bleu": Curve([6], [0.01]),
        "train_loss": Curve([6], [7.3]), "train_bsz": Curve([6], [30.0]),
        "train_wall": Curve([6], [12.0]),
    }  # fmt: skip


def test_a_resumed_run_replaces_what_it_does_again_and_broken_lines_are_passed_over() -> None:
    lines = [
        '{"num_updates": "1", "loss": "9"}\n',
        '{"num_updates": "2", "loss": "8"}\n',
        '{"num_updates": "3", "loss": "7"}\n',
        '{"num_updates": "2", "loss": "5", "bleu": "None", "list": [1]}\n',
        '{"num_updates": "4", "lo\n',
        '{"num_updates": "x", "loss": "3"}\n',
        '{"num_updates": "5", "loss": "inf"}\n',
    ]
    assert parse_log(lines).curves == {"loss": Curve([1, 2, 5], [9, 5, float("inf")])}


def test_nothing_of_a_dead_run_stays_beyond_where_it_was_resumed() -> None:
    def record(prefix: str, update: int, wall: int) -> str:
        return json.dumps({f"{prefix}num_updates": f"{update}", f"{prefix}wall": f"{wall}"})

    dead = [("", 10, 60), ("", 20, 120), ("valid_", 20, 0), ("train_", 20, 125), ("", 30, 180)]
    # Resumed at update 10 by a faster machine, with other steps between its lines.
    resumed = [("", 15, 75), ("", 25, 105)]
    log = parse_log(record(*each) for each in [*dead, *resumed])
    assert log.curves == {"wall": Curve([10, 15, 25], [60, 75, 105])}
    assert minutes_at(log.curves, [10, 15, 25]) == pytest.approx([1, 1.25, 1.75])


def test_minutes_follow_the_clock_over_a_restart() -> None:
    curves = {"wall": Curve([10, 20, 30, 40], [60, 120, 30, 90])}  # started again after update 20
    assert minutes_at(curves, [0, 5, 10, 15, 20, 30, 40, 50]) == pytest.approx(
        [0, 0.5, 1, 1.5, 2, 2.5, 3.5, 3.5]
    )
    assert minutes_at({"loss": Curve([1], [1.0])}, [1]) is None


@pytest.mark.parametrize("before", ["", PREFIX + "fairseq_cli.train | ", HYDRAS_PREFIX])
def test_minutes_of_a_resumed_run_go_on_from_those_of_the_earlier_start(before: str) -> None:
    """Also where the later clock has run for longer; without settings only a clock that falls shows it."""

    def record(update: int, wall: int, prefix: str = "") -> str:
        return json.dumps({f"{prefix}num_updates": f"{update}", f"{prefix}wall": f"{wall}"})

    start = f"{before}{{'_name': None, 'common': {{'seed': 1}}}}\n"
    assert parse_log([start]).settings == {"seed": 1}
    first, second = [record(100, 3600)], [record(200, 3660), record(200, 3660, "train_")]
    log = parse_log([start, *first, start, *second])
    assert minutes_at(log.curves, [100, 200]) == pytest.approx([60, 121])
    without = parse_log([start, *first, *second])
    assert minutes_at(without.curves, [100, 200]) == pytest.approx([60, 61])
    # A start that came to nothing, and one at 100 that does again what was done beyond it.
    dead = [record(150, 1800), record(200, 3600)]
    log = parse_log([start, *first, start, start, *dead, start, record(150, 60), record(200, 120)])
    assert minutes_at(log.curves, [100, 150, 200]) == pytest.approx([60, 61, 62])
    # Another training in the same file.
    log = parse_log([start, *first, start, record(50, 60), record(100, 120)])
    assert minutes_at(log.curves, [50, 100]) == pytest.approx([1, 2])


def test_settings_of_both_forms_are_read_and_never_run(tmp_path: Path) -> None:
    groups = (
        "{'_name': None, 'common': {'_name': None, 'seed': 1, 'cpu': True}, 'model': Namespace("
        "arch='tiny', seed=1, adam_betas=(0.9, 0.98), lr=[-0.001], _name='tiny'), 'task': {'_name': "
        "'translation', 'data': 'bin'}, 'criterion': {'_name': 'ce', 'over': others}}"
    )
    log = parse_log([f"{PREFIX}fairseq_cli.train | {groups}\n"])
    assert log.settings == {
        "seed": 1, "cpu": True, "arch": "tiny", "adam_betas": [0.9, 0.98], "lr": [-0.001],
        "task": "translation", "data": "bin", "criterion": "ce", "over": "others",
    }  # fmt: skip
    old = parse_log([f"{PREFIX}fairseq_cli.train | Namespace(arch='transformer', lr=[0.1])\n"])
    assert old.settings == {"arch": "transformer", "lr": [0.1]}
    target = tmp_path / "run"
    assert parse_settings(f"Namespace(x=open({str(target)!r}, 'w'))")["x"].startswith("open(")
    assert not target.exists()
    assert parse_settings("{'_name': None, 'common': {") == {}


def test_a_log_without_the_value_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text('{"num_updates": "1", "loss": "9"}\n')
    assert read_curve(tmp_path / "a.log", "loss") == Curve([1], [9.0])
    with pytest.raises(UserError, match=r"a\.log holds no value 'ppl'"):
        read_curve(tmp_path / "a.log", "ppl")
    with pytest.raises(UserError, match="cannot read log"):
        read_curve(tmp_path / "b.log", "ppl")
