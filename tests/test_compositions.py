"""What tests take for fairseq's configuration is what Hydra composes."""

from argparse import Namespace
from pathlib import Path

import pytest
from fairseq import options
from fairseq.dataclass import utils
from hydra.errors import HydraException
from hydra.experimental import compose

from tests.support.criterions import RDROP

OPTIONS = (
    ("--lr", "1e-3"),
    ("--lr", "1e-3,5e-4", "--save-dir", "it's {a}=b", "--fp16", "--eval-bleu", "--eval-bleu-args",
     '{"beam": 2}', "--max-update", "7", "--left-pad-source", "--update-freq", "4,2"),
    (*RDROP, "--lr", "0", "--adam-betas", "(0.9, 0.5)"),
)  # fmt: skip


def parsed(data: Path, *given: str) -> Namespace:
    import admin_nmt  # noqa: F401

    common = (str(data), "--arch", "admin_transformer_tiny", "--optimizer", "adam", "--cpu")
    return options.parse_args_and_arch(options.get_training_parser(), [*common, *given])


def test_remembered_configurations_are_those_of_hydra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = [parsed(tmp_path, *given) for given in OPTIONS]
    remembered = [
        utils.convert_namespace_to_omegaconf(args) for args in everything + everything[::-1]
    ]
    assert utils.compose is not compose
    monkeypatch.setattr(utils, "compose", compose)
    expected = [utils.convert_namespace_to_omegaconf(args) for args in everything]
    assert remembered == expected + expected[::-1]


def test_wrong_values_raise_what_hydra_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = parsed(tmp_path)
    utils.convert_namespace_to_omegaconf(args)
    args.ddp_backend = "none"
    errors = []
    for function in (utils.compose, compose):
        monkeypatch.setattr(utils, "compose", function)
        with pytest.raises(HydraException) as error:
            utils.convert_namespace_to_omegaconf(args)
        errors.append((error.type, str(error.value)))
    assert errors[0] == errors[1]
