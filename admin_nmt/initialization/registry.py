"""The values of `--init-type` and the scheme behind each."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from admin_nmt.initialization.admin import AdminScheme
from admin_nmt.initialization.analytic import AnalyticScheme
from admin_nmt.initialization.deepnorm import DeepNormScheme
from admin_nmt.initialization.rezero import ReZeroScheme
from admin_nmt.initialization.scheme import DefaultScheme, Depth, Scheme


class InitType(NamedTuple):
    """What one value of `--init-type` means.

    Attributes:
        scheme: constructor taking (depth, trainable).
        summary: what the help of `--init-type` says of it.
    """

    scheme: Callable[[Depth, bool], Scheme]
    summary: str


#: By the value of `--init-type`.
SCHEMES = {
    "admin": InitType(AdminScheme, "profiled at the start of training"),
    "admin-log": InitType(
        partial(AnalyticScheme, logarithmic=True), "from depth alone, output change O(log n)"
    ),
    "admin-const": InitType(
        partial(AnalyticScheme, logarithmic=False), "from depth alone, output change O(1)"
    ),
    "deepnorm": InitType(DeepNormScheme, "constants from depth, smaller weights"),
    "rezero": InitType(ReZeroScheme, "trained numbers from 0, no LayerNorm"),
    "default": InitType(
        DefaultScheme,
        "plain; pre-LN with --encoder-normalize-before --decoder-normalize-before",
    ),
}
