"""Options of the forks that this package replaces end in one line that names ours."""

from collections.abc import Callable
from typing import Any

import pytest

from admin_nmt.host.old_options import CHOICES, INIT_TYPES, OPTIONS, advice

PLAIN = ("--arch", "transformer")
GIVEN: dict[str, tuple[tuple[str, ...], str]] = {
    "init type": (("--init-type", "adaptive"), "give --init-type admin: it profiles"),
    "init type, plain model": (
        (*PLAIN, "--init-type", "adaptive"), "with an --arch admin_transformer*",
    ),
    "profiling": (("--init-type", "adaptive-profiling"), "one run instead of two"),
    "R-Drop": (("--reg-alpha", "5"), "--rdrop-alpha A"),
    "R-Drop's task": (("--task", "rdrop_translation"), "--task translation"),
    "R-Drop's criterion": (
        ("--criterion", "reg_label_smoothed_cross_entropy"), "label_smoothed_cross_entropy_rdrop",
    ),
    "masks": (("--transformer-mask-heads", "E:1:2", "A:1:1"), "--head-mask E:1:3,A:2:1"),
    "deepnmt's file": (("--admin-init-path=x.txt",), "--admin-profile FILE"),
    "deepnmt's model": (("--arch", "adv_transformer_wmt_en_de"), "--arch admin_transformer_wmt_en_de"),
    "underscores": (("--plot_variance", "--plot_gradient"), "--plot-gradient is not known here"),
}  # fmt: skip


@pytest.mark.parametrize(("options", "named"), GIVEN.values(), ids=GIVEN)
def test_one_line_names_ours(
    parse: Callable[..., Any], capsys: Any, options: tuple[str, ...], named: str
) -> None:
    with pytest.raises(SystemExit) as left:
        parse(*options)
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert named in line


def test_other_mistakes_are_told_as_before(parse: Callable[..., Any], capsys: Any) -> None:
    with pytest.raises(SystemExit) as left:
        parse("--no-such-option", "--max-tokens", "many")
    assert left.value.code == 2
    assert "usage:" in capsys.readouterr().err
    assert advice("unrecognized arguments: --no-such-option reg-alpha") is None


def test_what_is_advised_exists(parse: Callable[..., Any]) -> None:
    """Options and values that the advice tells to give."""
    import re

    from fairseq import options

    import admin_nmt.registration  # noqa: F401
    from admin_nmt.cli.main import build_parser
    from admin_nmt.models.admin_transformer import AdminTransformerModel

    train = options.get_training_parser()
    AdminTransformerModel.add_args(train)
    ours = build_parser()._subparsers._group_actions[0].choices.values()  # type: ignore
    known = {name for parser in (train, *ours) for name in parser._option_string_actions}
    told = " ".join([*OPTIONS.values(), *INIT_TYPES.values(), *CHOICES.values()])
    given = set(re.findall(r"--[a-z][a-z0-9-]+", told))
    assert given - known == {"--rdrop-alpha"}  # the criterion's own


def test_nothing_advised_is_refused_itself() -> None:
    told = [*OPTIONS.values(), *INIT_TYPES.values(), *CHOICES.values()]
    assert not [text for text in told for option in OPTIONS if f"{option} " in text]
