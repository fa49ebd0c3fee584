"""Options of the repositories that this package replaces: told what they are called here.

Only a command line that fairseq refuses anyway is looked at, so that a plug-in with options of the
same names (`--user-dir`) keeps them. docs/migrating.md has the whole table.
"""

import argparse
import re
from collections.abc import Callable
from functools import wraps
from typing import Any

from admin_nmt.errors import UsageError
from admin_nmt.host.patch import Patch, Scope

_PROFILE = "'admin-nmt profile DATA ... --plot FILE' shows variances by depth"
_ADVERSARIAL = "leave it out: deepnmt's adversarial training was not released"
_RDROP = (
    "give --criterion label_smoothed_cross_entropy_rdrop --rdrop-alpha A, with --task translation"
)
_FIXED = (
    "give --init-type admin-log; --admin-freeze-omega keeps omega fixed, without it it is trained"
)

#: Option of Transformer-Clinic, deepnmt, admin-torch's example, R-Drop, or Michel et al. -> what to
#: do here. Underscores count as hyphens.
OPTIONS = {
    "--admin-init-type": "give --init-type admin with an --arch admin_transformer*",
    "--admin-init-path": "leave it out: the profile is measured when training starts and kept in the "
    "checkpoint (--admin-profile FILE takes one of 'admin-nmt profile')",
    "--plot-variance": f"leave it out: {_PROFILE}",
    "--log-variance": f"leave it out: {_PROFILE}",
    "--plot-gradient": "leave it out: there is no counterpart",
    "--plot-stability": "leave it out: there is no counterpart",
    "--gradient-as-delta": "leave it out: there is no counterpart",
    "--mixed-precision": "leave it out: --fp16 or --bf16 is enough",
    "--adv-opt": _ADVERSARIAL,
    "--adv-step-size": _ADVERSARIAL,
    "--adv-alpha": _ADVERSARIAL,
    "--noise-var": _ADVERSARIAL,
    "--noise-gamma": _ADVERSARIAL,
    "--project-norm-type": _ADVERSARIAL,
    "--encoder-as-parameter": _FIXED,
    "--decoder-as-parameter": _FIXED,
    "--reg-alpha": _RDROP,
    "--transformer-mask-heads": "give --head-mask E:1:3,A:2:1 to train or fine-tune without heads; "
    "'admin-nmt ablate' measures and 'admin-nmt prune --heads' removes them",
    "--transformer-mask-all-but-one-head": "'admin-nmt ablate --experiments all-but-one' measures that",
    "--transformer-mask-rescale": "leave it out: removed heads are not compensated by a factor",
}
#: Value of `--init-type` of Transformer-Clinic -> what to do here.
INIT_TYPES = {
    "adaptive": "give --init-type admin: it profiles when training starts, without a file",
    "adaptive-profiling": "give --init-type admin: it profiles when training starts, so that there "
    "is one run instead of two",
    "deepnet": "give --init-type deepnorm",
    "looklinear": "there is no counterpart; choose from admin, deepnorm, rezero, default",
    "rezero_postln": "there is no counterpart; choose from admin, deepnorm, rezero, default",
}
#: Values of other options -> what to give here.
CHOICES = {
    ("--task", "adv_translation"): "--task translation",
    ("--task", "rdrop_translation"): "--task translation",
    ("--criterion", "adv_label_smoothed_cross_entropy"): "--criterion "
    "admin_label_smoothed_cross_entropy",
    ("--criterion", "reg_label_smoothed_cross_entropy"): "--criterion "
    "label_smoothed_cross_entropy_rdrop --rdrop-alpha A",
}


def advice(message: str) -> str | None:
    """What to do instead of an option of an old repository.

    Args:
        message: why argparse refuses a command line.

    Returns:
        one line; None if there is no such option in it.
    """
    choice = re.match(r"argument (--[\w-]+)\S*: invalid choice: '([^']*)'", message)
    if choice:
        found = _of_choice(choice[1], choice[2])
        return f"{choice[1]} {choice[2]} is not known here: {found}" if found else None
    unknown = message.partition("unrecognized arguments: ")[2].split()
    found_all = {}
    for place, word in enumerate(unknown):
        option, _, value = word.partition("=")
        option = option.replace("_", "-")
        following = value or "".join(unknown[place + 1 : place + 2])
        if option == "--init-type":
            told = _of_choice(option, following) or "give it"
            found_all[f"{option} {following}"] = f"{told} with an --arch admin_transformer*"
        elif option in OPTIONS:
            found_all[option] = OPTIONS[option]
    if not found_all:
        return None
    return "; ".join(f"{option} is not known here: {told}" for option, told in found_all.items())


def _of_choice(option: str, value: str) -> str | None:
    if option == "--init-type":
        return INIT_TYPES.get(value)
    if option == "--arch" and value.startswith("adv_transformer"):
        return f"give --arch {value.replace('adv_', 'admin_', 1)}, or another of the table in docs/training.md"
    given = CHOICES.get((option, value))
    return f"give {given}" if given else None


def _naming_ours(parse: Callable) -> Callable:
    """Options of the forks that this package replaces (`--init-type adaptive`, `--reg-alpha`, ...) are
    refused in one line that names the option of today, in place of the usage of all options."""

    @wraps(parse)
    def parse_args_and_arch(parser: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> Any:
        refuse = parser.error

        def error(message: str) -> Any:
            told = advice(message)
            if told:
                raise UsageError(told)
            refuse(message)

        parser.error = error  # type: ignore[method-assign]
        try:
            return parse(parser, *args, **kwargs)
        except UsageError as usage:
            parser.exit(usage.exit_code, f"{parser.prog}: error: {usage}\n")
        finally:
            parser.error = refuse  # type: ignore[method-assign]

    return parse_args_and_arch


PATCHES = (Patch("fairseq.options", "parse_args_and_arch", _naming_ours, Scope.ERRORS),)
