"""`admin-nmt profile` and the dispatcher, through the front door."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from admin_nmt.cli.main import main

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_profile_is_written_and_drawn(program: Run, data_bin: Path, tmp_path: Path) -> None:
    program(
        "admin-nmt", "profile", data_bin, "--arch", "admin_transformer_tiny", "--cpu",
        "--encoder-layers", 3, "--output", tmp_path / "profile.json",
        "--plot", tmp_path / "profile.png",
    )  # fmt: skip
    content = json.loads((tmp_path / "profile.json").read_text())
    assert len(content["sublayers"]) == 2 * 3 + 3 * 2
    assert content["measured"]["arch"] == "admin_transformer_tiny"
    assert content["sublayers"]["encoder.layers.0.self_attn_residual"]["omega"] == 1.0
    assert content["sublayers"]["encoder.layers.2.ffn_residual"]["omega"] > 1.0
    assert (tmp_path / "profile.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["profile.json", "profile.png"]


def profile(data: Path, output: Path, *options: str) -> int:
    """`admin-nmt profile` in this process: its exit code."""
    return main(["profile", str(data), "--cpu", "--output", str(output), *options])


def test_profile_watches_other_schemes_without_setting_omega(
    data_bin: Path, tmp_path: Path
) -> None:
    options = ("--arch", "admin_transformer_tiny", "--init-type", "deepnorm")
    assert profile(data_bin, tmp_path / "profile.json", *options) == 0
    sublayers = json.loads((tmp_path / "profile.json").read_text())["sublayers"]
    # DeepNorm, N = M = 2: encoder 0.81 (N^4 M)^(1/16), decoder (3 M)^(1/4)
    assert abs(sublayers["encoder.layers.1.ffn_residual"]["omega"] - 0.81 * 32 ** (1 / 16)) < 1e-6
    assert abs(sublayers["decoder.layers.1.ffn_residual"]["omega"] - 6**0.25) < 1e-6


def test_foreign_architecture_and_missing_folder_are_refused(
    data_bin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert profile(data_bin, tmp_path / "p.json", "--arch", "transformer") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "error: --arch transformer is not one of admin_nmt" in line
    nowhere = tmp_path / "nowhere" / "p.json"
    assert profile(data_bin, nowhere, "--arch", "admin_transformer_tiny") == 2
    assert f"error: --output {nowhere}: there is no folder" in capsys.readouterr().err
    architecture = ("--arch", "admin_transformer_tiny")
    assert profile(data_bin, tmp_path, *architecture) == 2
    assert f"error: --output {tmp_path} is a folder" in capsys.readouterr().err
    same = str(tmp_path / "p.json")
    assert profile(data_bin, Path(same), *architecture, "--plot", same) == 2
    assert f"error: --plot {same} is the --output" in capsys.readouterr().err
    assert profile(data_bin, Path(same), *architecture, "--plot", "p.txt") == 2
    assert "error: --plot p.txt: give a name that ends in .png" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_unknown_option_of_a_strict_subcommand_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as leave:
        main(["score", "a", "b", "--magic"])
    assert leave.value.code == 2
    assert "unrecognized arguments: --magic" in capsys.readouterr().err


def test_help_starts_without_torch() -> None:
    code = (
        "import sys, admin_nmt_autoload; sys.argv = ['admin-nmt', '--help']\n"
        "try: admin_nmt_autoload.main()\n"
        "except SystemExit as leave: assert leave.code == 0\n"
        "assert 'admin_nmt.cli.profile' in sys.modules\n"
        "print({'torch', 'fairseq', 'matplotlib'} & set(sys.modules), file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "profile" in result.stdout
    assert result.stderr == "set()\n"
