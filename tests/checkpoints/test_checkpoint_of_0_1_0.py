"""A checkpoint written by version 0.1.0 loads for ever: names and settings of checkpoints are frozen.

`tests/data/checkpoint-0.1.0` was made with the package of commit d9ec225: 60 updates of
`admin_transformer` (2L-1L, D = 16, 2 heads, ADMIN) on reversals of sentences over 20 words. It has
the binarised test set with its dictionaries, and `generated.txt`, the lines `H-` that `fairseq-generate
--cpu --beam 2 --max-len-b 10` of that version printed for it.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from admin_nmt.checkpoints import Checkpoint
from admin_nmt.cli.main import main
from tests.support.in_process import run_fairseq

STORED = Path(__file__).parents[1] / "data" / "checkpoint-0.1.0"
CHECKPOINT = STORED / "checkpoint_last.pt"


def hypotheses(text: str) -> dict[str, tuple[float, str]]:
    """Number of a sentence -> score and translation, of the lines `H-` of `fairseq-generate`."""
    rows = [line.split("\t") for line in text.splitlines() if line.startswith("H-")]
    return {number: (float(score), words) for number, score, words in rows}


def logits(path: Path) -> torch.Tensor:
    """Of one pair of sentences, by the model as fairseq loads it."""
    from fairseq import checkpoint_utils

    (model,), _, task = checkpoint_utils.load_model_ensemble_and_task(
        [str(path)], arg_overrides={"data": str(STORED)}
    )
    encode: Any = task.source_dictionary.encode_line
    source = encode("w7 w13 w2", add_if_not_exist=False).long()[None]
    with torch.no_grad():
        return model.eval()(source, torch.tensor([source.shape[1]]), source.roll(1, dims=1))[0]


def test_fairseq_generate_translates_as_then(capsys: pytest.CaptureFixture[str]) -> None:
    run_fairseq(
        "fairseq-generate", STORED, "-s", "de", "-t", "en", "--path", CHECKPOINT, "--cpu",
        "--beam", 2, "--max-len-b", 10,
        "--required-batch-size-multiple", 1,
    )  # fmt: skip
    found = hypotheses(capsys.readouterr().out)
    expected = hypotheses((STORED / "generated.txt").read_text(encoding="utf-8"))
    assert found.keys() == expected.keys() and len(found) == 8
    for number, (score, words) in expected.items():
        assert found[number] == (pytest.approx(score, abs=1e-4), words)


def test_it_is_folded(tmp_path: Path) -> None:
    output = tmp_path / "folded.pt"
    assert main(["fold", str(CHECKPOINT), "--output", str(output)]) == 0
    folded = Checkpoint.open(output)
    assert folded.state["cfg"]["model"]["_name"] == "transformer"
    assert not any(name.endswith("omega") for name in folded.weights)
    torch.testing.assert_close(logits(output), logits(CHECKPOINT), rtol=1e-4, atol=1e-4)


def test_it_is_averaged(tmp_path: Path) -> None:
    output = tmp_path / "average.pt"
    words = ["average", "--inputs", str(CHECKPOINT), str(CHECKPOINT), "--output", str(output)]
    assert main(words) == 0
    stored = Checkpoint.open(CHECKPOINT).weights
    averaged = Checkpoint.open(output).weights
    assert averaged.keys() == stored.keys()
    for name, value in stored.items():
        torch.testing.assert_close(averaged[name], value, msg=name)
    torch.testing.assert_close(logits(output), logits(CHECKPOINT))
