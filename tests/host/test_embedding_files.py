"""Models whose embeddings began as a file are loaded without that file."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq import checkpoint_utils
from omegaconf import OmegaConf

from admin_nmt.checkpoints.reading import load_checkpoint_file
from admin_nmt.host.embedding_files import PATCHES


@pytest.mark.parametrize("arch", ["admin_transformer_tiny", "transformer_tiny"])
def test_the_file_may_be_gone(
    checkpoint: Callable[..., Path], data_bin: Path, tmp_path: Path, arch: str
) -> None:
    """The first word begins at its vector; what is loaded is what training made of it."""
    vectors = tmp_path / "vectors.txt"
    word = (data_bin / "dict.de.txt").read_text().split()[0]
    vectors.write_text(f"1 64\n{word} {' '.join(['0.5'] * 64)}\n")
    path = checkpoint(
        "--arch", arch, "--encoder-embed-dim", "64", "--encoder-embed-path", str(vectors)
    )
    vectors.unlink()
    trained = load_checkpoint_file(path)["model"]
    models, _ = checkpoint_utils.load_model_ensemble(
        [str(path)], arg_overrides={"data": str(data_bin)}
    )
    name = "encoder.embed_tokens.weight"
    assert torch.equal(models[0].state_dict()[name], trained[name])


@pytest.mark.parametrize(
    "model",
    [
        {"encoder": {"embed_path": "gone"}, "decoder": {"embed_path": "gone"}},
        {"encoder_embed_path": "gone", "decoder_embed_path": "gone", "encoder": {}},
    ],
)
def test_settings_of_both_programs(model: dict[str, Any]) -> None:
    (patch,) = PATCHES
    for cfg in (OmegaConf.create({"model": model}), None):
        state = patch.decorate(lambda _, cfg=cfg: {"cfg": cfg})("file")
        assert "gone" not in str(state)
    old = Namespace(encoder_embed_path="gone", decoder_embed_path="gone", other="x")
    state = patch.decorate(lambda _: {"args": old, "cfg": None})("file")
    assert "gone" not in str(state) and state["args"].other == "x"
