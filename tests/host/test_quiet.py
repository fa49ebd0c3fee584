"""fairseq's own warnings are left out in its programs, and nobody else's anywhere."""

import logging
import warnings

import pytest

from admin_nmt.host import quiet

#: Text, category and module of what `fairseq-train` began with on Hydra 1.3 and PyTorch 2.13.
SEEN = [
    (
        "hydra.experimental.initialize() is no longer experimental. Use hydra.initialize()",
        UserWarning,
        "hydra.experimental.initialize",
    ),
    (
        "\nThe version_base parameter is not specified.\nPlease",
        UserWarning,
        "hydra.experimental.initialize",
    ),
    (
        "hydra.experimental.compose() is no longer experimental. Use hydra.compose()",
        UserWarning,
        "hydra.experimental.compose",
    ),
    (
        "In 'config': Usage of deprecated keyword in package header '# @package _group_'.\nSee",
        UserWarning,
        "hydra.core.default_element",
    ),
    (
        "\n'config' is validated against ConfigStore schema with the same name.\nThis",
        UserWarning,
        "sys",
    ),
    (
        "\n'config' is validated against ConfigStore schema with the same name.\nThat",
        UserWarning,
        "__main__",
    ),
    (  # from `admin-nmt evaluate` and `profile`
        "\n'config' is validated against ConfigStore schema with the same name.\nThis",
        UserWarning,
        "admin_nmt.evaluation.evaluate",
    ),
    ("\nThe strict flag in the compose API is deprecated.\nSee", UserWarning, "hydra.compose"),
    (
        "'pin_memory' argument is set as true but no accelerator is found, then",
        UserWarning,
        "torch.utils.data.dataloader",
    ),
    (
        "This DataLoader will create 2 worker processes in total. Our suggested max",
        UserWarning,
        "torch.utils.data.dataloader",
    ),
    (
        "`torch.cuda.amp.autocast(args...)` is deprecated. Please use",
        FutureWarning,
        "fairseq.tasks.fairseq_task",
    ),
    (
        "`torch.cuda.amp.GradScaler(args...)` is deprecated. Please use",
        FutureWarning,
        "fairseq.optim.amp_optimizer",
    ),
]


def shown(module: str = "") -> int:
    """How many of `SEEN` get through, said by the module that said them or by another one."""
    with warnings.catch_warnings(record=True) as caught:
        for text, category, origin in SEEN:
            warnings.warn_explicit(text, category, "file.py", 1, module or origin)
    return len(caught)


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's filters at start; pytest puts its own back after each test."""
    monkeypatch.delenv("ADMIN_NMT_WARNINGS", raising=False)
    warnings.resetwarnings()


def test_warnings_are_left_out_by_text_and_origin(fresh: None) -> None:
    assert shown() == len(SEEN)
    restore = quiet.install()
    quiet.install()
    assert shown() == 0
    assert shown("my_project.training") == len(SEEN), "a user's own warnings"
    restore()
    assert shown() == len(SEEN)


def test_they_can_be_asked_for(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings.simplefilter("default")  # what `python -W default` does before anything runs
    quiet.install()
    assert shown() == len(SEEN)
    warnings.resetwarnings()
    monkeypatch.setenv("ADMIN_NMT_WARNINGS", "1")
    quiet.install()
    assert shown() == len(SEEN)


def test_advice_to_install_tensorboard_is_left_out(
    fresh: None, caplog: pytest.LogCaptureFixture
) -> None:
    restore = quiet.install()
    (name,) = quiet.LOG_LINES
    logger = logging.getLogger(name)
    with caplog.at_level(logging.INFO):
        logger.info("Please install tensorboardX: pip install tensorboardX")
        logger.info("something else")
    restore()
    assert [record.getMessage() for record in caplog.records] == ["something else"]


@pytest.mark.parametrize(("program", "shown"), [("interactive", 1), ("train", 2)])
def test_interactive_says_nothing_of_the_data_set_of_a_line(
    fresh: None,
    program: str,
    shown: int,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.argv", [f"/usr/bin/fairseq-{program}"])
    restore = quiet.install()
    logger = logging.getLogger("fairseq.tasks.fairseq_task")
    with caplog.at_level(logging.INFO):
        logger.info("creating new batches for epoch 1")
        logger.info("something else")
    restore()
    assert len(caplog.messages) == shown


def test_logging_is_configured_before_a_module_of_fairseq_does_it(
    fresh: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/bin/fairseq-generate"])
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr(logging.root, "level", logging.WARNING)
    quiet.install_early()
    logging.basicConfig(level=logging.DEBUG)  # fairseq.models.wav2vec.wav2vec2_classification
    logging.getLogger("hydra.core.utils").debug("Setting JobRuntime:name=utils")
    logging.getLogger("fairseq_cli.generate").info("loading model(s)")
    assert capsys.readouterr().err.partition(" | ")[2] == (
        "INFO | fairseq_cli.generate | loading model(s)\n"
    )


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("/usr/bin/fairseq-train", True),
        ("/x/fairseq_cli/train.py", True),
        ("train.py", False),
        ("/usr/bin/pytest", False),
        ("", False),
    ],
)
def test_only_programs_of_fairseq(
    program: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", [program])
    assert quiet.in_fairseq_program() is expected
    installed = []
    monkeypatch.setattr(quiet, "install", lambda: installed.append(1))
    quiet.install_early()
    monkeypatch.setenv("ADMIN_NMT_WITHOUT", "batches, quiet")
    quiet.install_early()
    assert len(installed) == expected
