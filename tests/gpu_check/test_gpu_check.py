"""The GPU check: its arithmetic, its conduct when a stage goes wrong, and a rehearsal on the CPU."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
import weakref
from collections import defaultdict
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from admin_nmt.errors import UserError
from gpu_check import correct, data, decode, export, loss, run, speed, train
from gpu_check.breakdown import STEP, breakdown, class_of
from gpu_check.floor import (
    Shape,
    Work,
    even_work,
    floor_seconds,
    gemm_flops,
    least_bytes,
    peak_bytes,
)
from gpu_check.report import Report, described
from gpu_check.stage import Context

ROOT = Path(__file__).parents[2]


def test_flops_are_those_of_the_products_written_out() -> None:
    shape = Shape("", 2, 3, 8, 32, 2, 50)
    work = Work(source=12, target=10, source_length=6, target_length=5, tokens=9)

    def product(a: int, b: int, c: int) -> int:
        return 2 * a * b * c

    def attention(queries: int, keys: int) -> int:  # of all sentences: scores, then values
        return 2 * product(queries, 8, keys)

    encoder = product(12, 8, 24) + product(12, 8, 8) + attention(12, 6) + 2 * product(12, 8, 32)
    decoder = product(10, 8, 24) + product(10, 8, 8) + attention(10, 5) // 2
    decoder += 2 * product(10, 8, 8) + product(12, 8, 16) + attention(10, 6)
    decoder += 2 * product(10, 8, 32)
    forward = 2 * encoder + 3 * decoder + product(10, 8, 50)
    assert gemm_flops(shape, work) == 3 * forward


def test_the_floor_is_products_and_bytes_one_after_the_other() -> None:
    shape, work = Shape("", 1, 1, 4, 8, 2, 10), even_work(6, 3)
    moved = least_bytes(shape, work)
    # 2 + 3 sublayers of 8 rows of D, 2 FFNs of 5 rows of F, two bytes each.
    assert moved["elementwise"] == 2 * 6 * (5 * 8 * 4 + 2 * 5 * 8)
    assert moved["loss"] == 2 * 3 * 6 * 10
    expected = gemm_flops(shape, work) / 10 + sum(moved.values()) / 5
    assert floor_seconds(shape, work, matmul_rate=10, copy_rate=5) == pytest.approx(expected)
    assert even_work(6, 3, passes=2) == Work(12, 12, 3, 3, 6)
    assert least_bytes(shape, work.times(2))["optimizer"] == moved["optimizer"]


def test_peak_memory_is_weights_and_what_layers_keep() -> None:
    shape = Shape("", 2, 3, 8, 32, 2, 50)
    work = Work(source=12, target=10, source_length=6, target_length=5, tokens=9)
    encoder = 12 * (8 * 8 + 32)
    decoder = 10 * (12 * 8 + 32) + 12 * 16
    weights = 2 * (4 * 64 + 2 * 256) + 3 * (8 * 64 + 2 * 256) + 400
    assert peak_bytes(shape, work) == 14 * weights + 2 * (2 * encoder + 3 * decoder)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("nvjet_sm90_tst_128x256_64x4_2x1_v_bz_coopA_TNT", "GEMM"),
        ("sm80_xmma_gemm_bf16bf16", "GEMM"),
        ("aten::addmm", "GEMM"),
        ("aten::bmm", "GEMM"),
        ("pytorch_flash::flash_fwd_kernel", "attention"),
        ("fmha_cutlassF_bf16_aligned", "attention"),
        ("_residual_attention_backward", "attention"),
        ("_linear_loss_kernel", "loss"),
        ("aten::_log_softmax", "loss"),
        ("aten::_softmax", "attention"),
        ("_residual_norm_forward", "elementwise"),
        ("aten::comma", "elementwise"),
        ("Memcpy DtoH (Device -> Pinned)", "copies"),
    ],
)
def test_kernels_have_a_class(name: str, label: str) -> None:
    assert class_of(name) == label


def event(cat: str, name: str, ts: float, dur: float, **more: Any) -> dict[str, Any]:
    return {"ph": "X", "cat": cat, "name": name, "ts": ts, "dur": dur, "tid": 1, "args": more}


def test_breakdown_of_a_device() -> None:
    events = [
        event("user_annotation", STEP, 0, 100),
        event("user_annotation", "optimizer", 40, 10),
        event("cuda_runtime", "cudaLaunchKernel", 5, 1, correlation=1),
        event("cuda_runtime", "cudaLaunchKernel", 45, 1, correlation=2),
        event("cuda_runtime", "cudaLaunchKernel", 60, 1, correlation=3),
        event("kernel", "gemm", 10, 20, correlation=1),
        event("kernel", "gemm in the optimizer", 60, 10, correlation=2),
        event("kernel", "vectorized", 65, 15, correlation=3),  # overlaps by 5
        {"ph": "M", "name": "process_name"},
    ]
    found = breakdown(events)
    assert found["GEMM"] == pytest.approx(20e-6) and found["optimizer"] == pytest.approx(10e-6)
    assert found["elementwise"] == pytest.approx(15e-6)
    assert found["gaps"] == pytest.approx(60e-6) and found["launches"] == 3


def test_breakdown_of_a_cpu_counts_no_time_twice() -> None:
    events = [
        event("user_annotation", STEP, 0, 50),
        event("cpu_op", "aten::linear", 0, 30),
        event("cpu_op", "aten::addmm", 5, 20),
        event("cpu_op", "aten::copy_", 6, 5),
    ]
    found = breakdown(events)
    assert found["GEMM"] == pytest.approx(15e-6) and found["elementwise"] == pytest.approx(15e-6)
    assert found["gaps"] == pytest.approx(20e-6)


def test_time_that_a_stage_leaves_goes_to_those_after_it() -> None:
    stages = list(run.SHARES)
    assert sum(run.SHARES.values()) == 24
    assert run.seconds_for("environment", stages, 240) == pytest.approx(10)
    assert run.seconds_for("speed", stages[2:], 190) == pytest.approx(80)
    assert run.seconds_for("export", stages[-1:], 50) == 50


def python(text: str) -> list[str]:
    return [sys.executable, "-c", text]


ROW = "import admin_nmt_autoload as a; a.defer_registration = True; "
ROW += "from pathlib import Path; from gpu_check.report import Report; import sys, time, os; "
ROW += "r = Report(Path(sys.argv[1]), 'speed'); r.row('t', x=1); "


def test_a_stage_that_exceeds_its_time_is_ended_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time is over as soon as its child runs."""
    limit, written = 600.0, tmp_path / "child"

    class Process(subprocess.Popen):
        def wait(self, timeout: float | None = None) -> int:
            if timeout != limit:
                return super().wait(timeout)
            while self.poll() is None and not (written.exists() and written.read_text()):
                time.sleep(0.05)
            raise subprocess.TimeoutExpired(self.args, limit)

    monkeypatch.setattr(run.subprocess, "Popen", Process)
    child = "import subprocess, sys; p = subprocess.Popen(['sleep', '1000']); "
    child += "open(sys.argv[1] + '/child', 'w').write(str(p.pid)); "
    command = [*python(ROW + child + "time.sleep(1000)"), str(tmp_path)]
    found = run.run_stage("speed", command, limit, tmp_path)
    assert found["status"] == "out of time" and found["tables"] == {"t": [{"x": 1}]}
    assert json.loads((tmp_path / "speed.json").read_text()) == found
    assert "out of time" in (tmp_path / "speed.txt").read_text()
    status, end = Path("/proc", written.read_text(), "stat"), time.monotonic() + 100
    while status.exists() and status.read_text().split()[2] != "Z":  # dead, if nobody asked for it
        assert time.monotonic() < end, status.read_text()
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        ("raise ValueError('no card')", "ValueError: no card"),
        ("os.kill(os.getpid(), 9)", "killed by SIGKILL"),
    ],
)
def test_a_stage_that_dies_is_one_line(tmp_path: Path, end: str, reason: str) -> None:
    found = run.run_stage("speed", [*python(ROW + end), str(tmp_path)], 600, tmp_path)
    assert found["status"] == "failed" and reason in found["reason"]
    assert "\n" not in found["reason"] and found["tables"] == {"t": [{"x": 1}]}


def test_a_failed_stage_does_not_keep_the_next_from_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = {"correct": "raise ValueError('no card')", "speed": "r.finish()"}
    monkeypatch.setattr(run, "command_of", lambda stage, *_: [*python(ROW + ends[stage]), str(tmp_path)])  # fmt: skip
    options = ["--device", "cpu", "--output", str(tmp_path), "--minutes", "20"]
    code = run.main([*options, "--stage", "correct", "--stage", "speed"])
    lines = capsys.readouterr().out.splitlines()
    assert code == 1
    rows = [
        [cell.strip() for cell in line.split("|")[1:3]] for line in lines if line.count("|") > 4
    ]
    assert ["correct", "failed"] in rows and ["speed", "passed"] in rows


def test_wrong_command_lines_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(["--device", "cpu", "--minutes", "0"]) == 2
    assert capsys.readouterr().err == (
        "gpu-check.sh: error: --minutes 0.0: give a number above 0\n"
    )
    assert run.main(["--device", "cpu", "--data", str(tmp_path)]) == 1
    assert "holds no binarised data" in capsys.readouterr().err


def test_without_a_gpu_the_check_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="--device cpu --smoke"):
        run.require_gpu("cuda")


def test_each_kind_of_data_has_a_folder_and_is_made_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run may have left data of another kind, or have been interrupted."""
    monkeypatch.setattr("trainings.run", lambda *_: None)
    archives = tmp_path / "archives"
    archives.mkdir()
    (archives / "train.de.gz").touch()
    found = []
    for smoke, multi30k in ((True, ""), (False, str(archives))):
        monkeypatch.setenv("ADMIN_NMT_MULTI30K", multi30k)
        found.append(
            data.data_folder(Context(Report(tmp_path, "x"), tmp_path, "cpu", smoke, None, 0))
        )
    assert len(set(found)) == 2
    for name in ("valid.de", "train.de", "train.en"):
        (tmp_path / "corpus-small" / name).unlink()
    monkeypatch.setenv("ADMIN_NMT_MULTI30K", "")
    data.data_folder(Context(Report(tmp_path, "x"), tmp_path, "cpu", True, None, 0))
    assert len((tmp_path / "corpus-small" / "train.en").read_text().splitlines()) == 400


def test_what_an_earlier_run_made_of_other_data_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(command: list[str | Path], log: Path) -> None:
        place = log.parent / "checkpoints" / "checkpoint_last.pt"
        place.parent.mkdir()
        place.touch()

    monkeypatch.setattr(train, "run_program", trained)
    end = time.monotonic() + 1000
    context = Context(Report(tmp_path, "decode"), tmp_path, "cpu", True, None, end)
    for pair in ("de-en", "en-fr"):
        source, target = pair.split("-")
        (tmp_path / pair).mkdir()
        for name in (f"dict.{source}.txt", f"dict.{target}.txt", f"train.{pair}.{source}.bin"):
            (tmp_path / pair / name).write_text("word 1\n")
        filled = data.with_types(tmp_path / pair, tmp_path / "types", 8)
        names = {path.name for path in (tmp_path / pair).iterdir()}
        assert {path.name for path in filled.iterdir()} == names
        assert len((filled / f"dict.{source}.txt").read_text().splitlines()) == 4
    german, french = tmp_path / "de-en", tmp_path / "en-fr"
    left = train.train(german, train.size(context), tmp_path / "train" / "admin", context, 1)
    assert decode.checkpoint(context, german) == (left.checkpoint, True)
    small = tmp_path / "small" / "checkpoints" / "checkpoint_last.pt"
    assert decode.checkpoint(context, french) == (small, False)
    (left.folder / train.DATA).unlink()  # as an earlier version left it
    assert decode.checkpoint(context, german) == (small, False)


def test_a_rehearsal_has_another_folder() -> None:
    assert run.parse_arguments([]).output != run.parse_arguments(["--smoke"]).output


def test_a_failed_check_fails_its_stage(tmp_path: Path) -> None:
    report = Report(tmp_path, "correct")
    report.check("kernels", "loss", True)
    report.check("kernels", "attention", False, error=float("nan"))
    report.finish()
    content = json.loads((tmp_path / "correct.json").read_text())
    assert content["status"] == "failed" and content["reason"] == "1 failed: attention"
    assert "nan" in (tmp_path / "correct.txt").read_text()


def test_the_script_runs_a_stage_and_keeps_its_results(data_bin: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        ["bash", ROOT / "scripts" / "gpu-check.sh", "--device", "cpu", "--smoke",
         "--data", data_bin, "--output", "out", "--stage", "environment"],
        capture_output=True, text=True, timeout=600, cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1", "ADMIN_NMT_VENV": sys.prefix},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-2000:]
    found = json.loads((tmp_path / "out" / "environment.json").read_text())
    assert "| environment | passed" in (tmp_path / "out" / "results.txt").read_text()
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == {"environment": found}


@pytest.fixture(scope="module")
def rehearsed(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Stage -> tables: the very code that runs on a GPU, with tiny sizes, on the CPU.

    `speed` comes after `train`: it turns off the log that `train` reads.
    """
    paths, output = [ROOT, *run.PATHS], tmp_path_factory.mktemp("rehearsed")
    stages = ["train", "decode", "export", "correct", "speed", "loss"]
    result = subprocess.run(
        [sys.executable, "-m", "tests.support.rehearsal", *stages, "--",
         "--output", output, "--device", "cpu", "--seconds", "600", "--smoke",
         "--data", prepared / "data-bin"],
        capture_output=True, text=True, timeout=600,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(str, paths))},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-2000:]
    found = {stage: json.loads((output / f"{stage}.json").read_text()) for stage in stages}
    assert {content["status"] for content in found.values()} == {"passed"}
    return {stage: content["tables"] for stage, content in found.items()}


@pytest.mark.slow
@pytest.mark.xdist_group("rehearsed")  # in one worker, once
def test_rehearsal_of_kernels_and_speed(rehearsed: dict[str, Any]) -> None:
    kernels = rehearsed["correct"]["kernels"]
    names = {row["check"].split()[0] for row in kernels}
    assert names == {"linear_loss", "rdrop", "residual_attention", "residual_norm"}
    assert all(0 <= row["error"] <= row["bound"] for row in kernels)
    assert len(rehearsed["correct"]["decoding"]) == 2
    graphs = rehearsed["correct"]["graphs"]
    assert [row["check"].split(":")[0] for row in graphs] == ["RealFormer, bf16", "RealFormer"]
    updates = rehearsed["speed"]["updates"]
    assert {row["loss"] for row in updates} == {"smoothing", "R-Drop"}
    assert all(row["tokens/s"] > 0 and row["ms"] > row["floor ms"] > 0 for row in updates)
    shares = rehearsed["speed"]["where the time goes"]
    assert {row["variant"] for row in shares} >= {
        "fairseq",
        "ours",
        "RealFormer, fused norm",
        "ours, CUDA graphs",
    }
    assert all(row["GEMM ms"] > 0 and row["loss ms"] > 0 for row in shares)
    losses = rehearsed["loss"]["projection and loss"]
    assert {(row["loss"], row["variant"]) for row in losses} == {
        (loss, variant)
        for loss in ("smoothing", "R-Drop")
        for variant in ("fairseq", "ours", "ours, chunks of 64")
    }
    assert all(row["ms"] > 0 and row["TFLOP/s"] > 0 for row in losses)


@pytest.mark.slow
@pytest.mark.xdist_group("rehearsed")  # in one worker, once
def test_rehearsal_of_training_translation_and_export(rehearsed: dict[str, Any]) -> None:
    found = rehearsed
    models = found["train"]["models"]
    assert [(row["model"], row["updates"]) for row in models] == [
        ("ADMIN 2L-1L", 12), ("post-LN 2L-1L", 12),
    ]  # fmt: skip
    assert all(row["tokens/s"] > 0 for row in models)
    scores = found["train"]["scores"]
    assert [row["model"] for row in scores] == [row["model"] for row in models]
    assert all(row["BLEU"] >= 0 for row in scores)
    assert found["train"]["checks"][0]["ok"] == "yes"
    assert all({"ppl ADMIN", "ppl post-LN"} <= row.keys() for row in found["train"]["curves"])
    searches = found["decode"]["fairseq-generate"]
    assert [row["model"] for row in found["decode"]["runs"]] == ["fairseq", "ours"]
    assert [row["model"] for row in searches] == ["fairseq", "ours"]
    assert all(row["sentences/s"] > 0 and row["note"] == "" for row in searches)  # of stage `train`
    (exported,) = found["export"]["CTranslate2"]
    assert exported["compared"] == exported["identical"] == 8
    assert exported["sentences/s"] > 0 and exported["BLEU"] >= 0


def test_fairseq_takes_the_command_of_a_card(tmp_path: Path) -> None:
    from fairseq import options
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    import admin_nmt  # noqa: F401

    report = Report(tmp_path, "train")
    context = Context(report, tmp_path, "cuda", smoke=False, data=None, end=0.0)
    command = train.command(tmp_path, train.size(context), tmp_path, context, 60)
    parser = options.get_training_parser()
    arguments = [str(part) for part in command[1:]]
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, arguments))
    assert cfg.common.bf16 and not cfg.common.cpu and cfg.model.cuda_graphs
    assert (cfg.model.encoder_layers, cfg.model.encoder_ffn_embed_dim) == (60, 2048)


def test_compiled_layers_are_compared_with_eager_ones_on_a_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def losses(
        context: Context, name: str, device: str, extra: list[str], count: int
    ) -> list[float]:
        assert name in correct.TRAININGS
        return [1.02 if "--compile" in extra else 1.0] * count

    monkeypatch.setattr(correct, "training_losses", losses)
    report, end = Report(tmp_path, "correct"), time.monotonic() + 100
    for device in ("cpu", "cuda"):
        correct.check_compiled(Context(report, tmp_path, device, False, None, end))
    tables = report.content["tables"]
    assert len(tables["left out"]) == 2  # on the CPU
    assert [(row["check"].split(":")[0], row["ok"]) for row in tables["compiled"]] == [
        ("ADMIN, fp32", "NO"), ("R-Drop, bf16", "yes"),
    ]  # fmt: skip


def test_an_error_is_told_with_the_one_that_it_came_from() -> None:
    assert described(ValueError("bad\nmore")) == "ValueError: bad"
    try:
        try:
            raise KeyError("kernel")
        except KeyError:
            raise RuntimeError("capture was invalid") from None
    except RuntimeError as error:
        assert described(error) == "RuntimeError: capture was invalid"
        error.__suppress_context__ = False
        assert described(error) == "KeyError: 'kernel'; then RuntimeError: capture was invalid"


def test_an_error_in_an_update_is_its_own_and_writes_nothing(
    data_bin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fairseq's trainer would save `crash.pt`, and where there is no folder for it, fail in that."""
    from gpu_check import trainers

    class KernelError(Exception):
        """As Triton's, which are no RuntimeError."""

    def broken(*_: Any, **__: Any) -> None:
        raise KernelError("too many registers")

    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    options = ["--arch", "admin_transformer_tiny", *trainers.OPTIMIZER, "--optimizer", "radam"]
    options += ["--criterion", "admin_label_smoothed_cross_entropy"]
    trainer = trainers.build_trainer(data_bin, "cpu", options, 300)
    (batch,) = trainers.batches(trainer, 300, 1)
    trainer.get_model().encoder.forward = broken
    with pytest.raises(KernelError, match="too many registers"):
        trainers.update(trainer, batch)
    assert not list((tmp_path / "checkpoints").iterdir())


class Stub:
    """A trainer that makes updates, or fails: when it is built, at its first, or at a later one."""

    def __init__(self, options: list[str]) -> None:
        self.fails_after = 10**6
        if "--fused-residual-norm" in options:
            self.fails_after = 2
        elif "--residual-attention" in options:
            self.fails_after = 0
        elif "--compile" in options:
            raise ValueError("no compiler")

    def update(self, _: Any) -> None:
        self.fails_after -= 1
        if self.fails_after < 0:
            raise RuntimeError("bad kernel")

    def zero_grad(self) -> None:
        pass


@pytest.fixture
def stubs(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = torch.ones(2, 3)
    sample = {"net_input": {"src_tokens": tokens}, "target": tokens, "ntokens": 6}
    monkeypatch.setattr(speed, "build_trainer", lambda _, __, options, *___, **____: Stub(options))
    monkeypatch.setattr(speed, "batches", lambda _, __, count, *___: [sample] * count)
    monkeypatch.setattr(speed, "update", lambda trainer, batch: trainer.update(batch))
    monkeypatch.setattr(speed, "set_criterion", lambda *_: None)
    monkeypatch.setattr(speed, "release", lambda _: None)  # which looks at everything in memory


@pytest.mark.usefixtures("stubs")
def test_a_variant_that_fails_leaves_the_others_their_rows(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    report = Report(tmp_path, "speed")
    context = Context(report, tmp_path, "cpu", True, None, time.monotonic() + 1000)
    group = speed.Group(Shape("tiny", 1, 1, 8, 8, 1, 9), "fp32", ())
    models = speed.Models(context, tmp_path, group)
    variants = ("fairseq", "RealFormer", "ours, compiled", "ours, fused norm", "ours")
    case = speed.Case(300, variants=variants)
    speed.measure(context, models, case, lambda _: 1.0)
    speed.measure(context, models, speed.Case(300, variants=variants[1:3]), lambda _: 1.0)
    speed.profile_steps(context, models, speed.Case(300, variants=variants[1:4]))
    report.finish()
    rows = [(row["variant"], row.get("note")) for row in report.content["tables"]["updates"]]
    assert rows[:5] == [
        ("RealFormer", "RuntimeError: bad kernel"), ("ours, compiled", "ValueError: no compiler"),
        ("fairseq", None), ("ours, fused norm", "RuntimeError: bad kernel"), ("ours", None),
    ]  # fmt: skip
    assert rows[5:] == rows[:2]  # built once, told each time
    last = report.content["tables"]["updates"][4]
    assert last["tokens/s"] > 0 and last["ratio"] > 0 and last["memory"] == ""
    (profiled,) = report.content["tables"]["where the time goes"]
    assert profiled["note"] == "RuntimeError: bad kernel"
    assert report.content["status"] == "failed"
    assert report.content["reason"].startswith("5 failed: tiny, fp32, 300, smoothing, RealFormer; ")
    assert "Traceback" in capfd.readouterr().err


@pytest.mark.usefixtures("stubs")
def test_memory_that_does_not_suffice_fails_a_variant_but_not_the_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def update(trainer: Stub, _: Any) -> None:
        raise speed.OutOfMemoryError("2 GiB")

    monkeypatch.setattr(speed, "update", update)
    report = Report(tmp_path, "speed")
    context = Context(report, tmp_path, "cpu", True, None, time.monotonic() + 1000)
    models = speed.Models(context, tmp_path, speed.SMOKE_GROUPS[0])
    speed.measure(context, models, speed.Case(300, variants=("fairseq",)), lambda _: 1.0)
    report.finish()
    assert report.content["tables"]["updates"][0]["note"] == "out of memory"
    assert report.content["status"] == "passed"


@pytest.mark.usefixtures("stubs")
def test_the_models_of_a_group_are_gone_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else they take the memory of the next ones, and are freed while that is counted."""
    alive: list[int] = []
    made: list[weakref.ref] = []

    class Watched(speed.Models):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(weakref.ref(self))

    def release(_: str) -> None:
        alive.append(sum(model() is not None for model in made))

    for name, function in (
        ("Models", Watched), ("release", release), ("data_folder", lambda _: tmp_path),
        ("with_types", lambda *_: tmp_path), ("floors_of", lambda *_: lambda _: 1.0),
        ("profile_steps", lambda *_: None),
    ):  # fmt: skip
        monkeypatch.setattr(speed, name, function)
    monkeypatch.setattr("gpu_check.rates.measure", lambda *_: {})
    end = time.monotonic() + 1000
    speed.run(Context(Report(tmp_path, "speed"), tmp_path, "cpu", True, None, end))
    assert len(made) == 2 and alive[-1] == 0 and max(alive) == 1, alive


def test_the_raw_test_set_has_a_line_for_a_line_feed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other separators are text, as for `admin-nmt prepare`."""
    given = []

    class Echo:
        def translate(self, lines: list[str]) -> list[str]:
            given.append(lines)
            return lines

    (tmp_path / "raw").mkdir()
    for language in ("de", "en"):
        (tmp_path / "raw" / f"test.{language}").write_text(
            "ein\u2028Haus\nzwei\n", encoding="utf-8"
        )
    preparation = {"source_lang": "de", "target_lang": "en"}
    (tmp_path / "preparation.json").write_text(json.dumps(preparation))
    monkeypatch.setattr("admin_nmt.export.load_translator", lambda *_, **__: Echo())
    context = Context(Report(tmp_path, "export"), tmp_path, "cpu", True, None, 0.0)
    export.translated(context, tmp_path, tmp_path)
    assert given[-1] == ["ein\u2028Haus", "zwei"]


def test_gradients_of_another_loss_are_no_part_of_ones_own_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = torch.nn.Linear(2, 3)
    model.output_projection = model  # type: ignore[assignment]
    features = torch.ones(4, 2, requires_grad=True)
    sample = {"net_input": {"src_tokens": features}, "target": None}

    def allocated() -> int:
        return sum(x.numel() for x in (features.grad, model.weight.grad) if x is not None)

    for name in ("memory_allocated", "max_memory_allocated"):
        monkeypatch.setattr(f"torch.cuda.{name}", allocated)
    monkeypatch.setattr("torch.cuda.reset_peak_memory_stats", lambda: None)
    step = loss.function_step(model, lambda features, weight, _: (features @ weight.T).sum())
    runners = [loss.Measured("cuda", model, step, [sample]) for _ in range(2)]
    for runner in runners:
        runner(0)
        assert runner.failure == "" and runner.peak == 4 * 2 + 3 * 2


def test_a_model_that_does_not_translate_leaves_the_other_its_rates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def folded(*_: Any) -> Path:
        raise UserError("cannot be folded")

    monkeypatch.setattr(decode, "folded", folded)
    monkeypatch.setattr(decode, "checkpoint", lambda *_: (tmp_path / "ours.pt", True))
    monkeypatch.setattr(decode, "data_folder", lambda _: tmp_path)
    monkeypatch.setattr(decode, "generate", lambda *_: (2.0, 30.0))
    report = Report(tmp_path, "decode")
    decode.run(Context(report, tmp_path, "cuda", False, None, time.monotonic() + 1000))
    report.finish()
    tables = report.content["tables"]
    assert [row["model"] for row in tables["runs"]] == ["fairseq", *["ours"] * 3]
    assert tables["runs"][0]["note"] == "cannot be folded"
    (row,) = tables["fairseq-generate"]
    assert (row["model"], row["rounds"], row["sentences/s"]) == ("ours", 3, 2.0)
    assert report.content["reason"] == "1 failed: fairseq"


def test_scores_that_fail_leave_both_trainings_their_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def run_training(
        data: Path, model: Any, folder: Path, context: Context, seconds: float
    ) -> train.Trained:
        calls.append(model.init_type)
        folder.mkdir(parents=True)
        lines = [{"ppl": str(9 - n), "wps": "5", "num_updates": str(n)} for n in (1, 2)]
        log = "".join(f"| train_inner | {json.dumps(line)}\n" for line in lines)
        (folder / "train.log").write_text(log)
        return train.Trained(model, folder)

    def evaluate(data: Path, trained: train.Trained, context: Context) -> dict[str, float]:
        calls.append("evaluate")
        if trained.model.init_type == "admin":
            raise UserError("generation failed")
        return {"BLEU": 1.0}

    monkeypatch.setattr(train, "data_folder", lambda _: tmp_path)
    monkeypatch.setattr(train, "train", run_training)
    monkeypatch.setattr(train, "evaluate", evaluate)
    monkeypatch.setattr(train, "find_spec", lambda _: None)
    report = Report(tmp_path, "train")
    train.run(Context(report, tmp_path, "cuda", False, None, time.monotonic() + 1000))
    report.finish()
    assert calls == ["admin", "default", "evaluate", "evaluate"]
    tables = report.content["tables"]
    assert [row["updates"] for row in tables["models"]] == [2, 2]
    assert len(tables["curves"]) == 2
    assert [row.get("note", row.get("BLEU")) for row in tables["scores"]] == [
        "generation failed", 1.0,
    ]  # fmt: skip
    assert report.content["reason"] == "1 failed: scores of ADMIN 60L-12L"


def test_the_kernels_tests_run_where_only_pytest_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(command: list[str], **given: Any) -> subprocess.CompletedProcess[str]:
        assert not any(word.startswith("--timeout") for word in command)
        assert given["env"]["PYTEST_TIMEOUT"] == "0"
        return subprocess.CompletedProcess(command, 0, "3 passed", "")

    monkeypatch.setattr(subprocess, "run", started)
    report = Report(tmp_path, "correct")
    correct.check_tests(Context(report, tmp_path, "cuda", False, None, time.monotonic() + 100))
    assert report.content["tables"]["tests"][0]["note"] == "3 passed"


def needed(name: str, without: frozenset[str]) -> set[str]:
    """What a package of this environment requires, and what that requires, by normalised names."""
    found: set[str] = set()
    to_come = [name]
    while to_come:
        for text in distribution(to_come.pop()).requires or ():
            requirement = Requirement(text)
            own = canonicalize_name(requirement.name)
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
            if own not in found | without:
                found.add(own)
                to_come.append(own)
    return found


def test_the_luggage_has_all_that_the_package_needs() -> None:
    script = (ROOT / "scripts" / "gpu_check" / "luggage.sh").read_text()
    listed = re.search(r"binary=\(\n(.*?)\n\)", script, re.DOTALL)
    assert listed
    words = shlex.split(listed[1], comments=True)
    carried = {canonicalize_name(Requirement(word).name) for word in words}
    assert "setuptools" in carried  # builds the package, whatever the machine has
    carried.add("antlr4-python3-runtime")  # built there
    # Of the machine; fairseq is another build there, and uses no sound; no plots without matplotlib.
    given = frozenset({"torch", "numpy", "scikit-learn", "torchaudio", "matplotlib"})
    wanted = needed("admin-nmt", given) - {"ve-fairseq", "fairseq-fixed"}
    assert {"sacremoses", "pydantic-core", "omegaconf"} <= wanted
    assert wanted <= carried | {"cython"}, wanted - carried


def test_the_loss_reads_the_targets_logit_before_other_warps_may_overwrite_it() -> None:
    """All warps wait for each other between that and the first store of a gradient."""
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget

    from gpu_check import compile_ahead

    for passes in ("1 pass", "2 passes"):
        (kernel,) = (k for k in compile_ahead.kernels() if k.what == f"loss, {passes}")
        compiled = triton.compile(
            kernel.source("bf16"), target=GPUTarget("cuda", 90, 32), options=kernel.options
        )
        loads, stores, barriers, line = defaultdict[str, list[int]](list), [], [], ""
        for number, text in enumerate(compiled.asm["ptx"].splitlines()):
            if said := re.match(r"\s*\.loc\s+\d+\s+(\d+)", text):
                line = said[1]
            elif "ld.global.b16" in text:
                loads[line].append(number)
            elif "st.global.b16" in text:
                stores.append(number)
            elif "bar.sync" in text:
                barriers.append(number)
        assert len(loads) == 3, passes  # two sweeps of many loads, and the target's
        last = min(loads.values(), key=len)[-1]
        assert any(last < barrier < stores[0] for barrier in barriers), passes


def test_kernels_compile_for_cards_that_are_not_here() -> None:
    pytest.importorskip("triton")
    from gpu_check import compile_ahead

    kernels = compile_ahead.kernels()
    assert {kernel.function.__name__ for kernel in kernels} == {
        "_linear_loss", "_residual_attention_forward", "_residual_attention_backward",
        "_residual_norm_forward", "_residual_norm_backward",
    }  # fmt: skip
    # The second is the one that comes nearest to spilling registers.
    for name, target in (
        ("residual norm forward, D 512", 90),
        ("residual attention backward, K 128", 80),
    ):
        (kernel,) = (k for k in kernels if k.what == name)
        what, card, registers, stack, shared, warps, at_once = compile_ahead.row(kernel, target)
        assert (what, card, stack, warps) == (name, f"sm_{target}", 0, 4)
        assert 16 <= registers <= 255 and shared > 0 and at_once >= 2


def test_programs_that_a_multiprocessor_holds() -> None:
    pytest.importorskip("triton")
    from gpu_check.compile_ahead import programs_at_once

    assert programs_at_once(32, 0, 4, 90) == 16  # threads
    assert programs_at_once(250, 0, 4, 90) == 2  # registers, given out by 256
    assert programs_at_once(32, 99 * 1024, 4, 90) == 2  # shared memory
    assert programs_at_once(32, 228 * 1024, 4, 90) == 0
