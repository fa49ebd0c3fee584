"""The values of `--init-type` and the scheme behind each."""

from collections.abc import Callable
from functools import partial

from admin_nmt.initialization.admin import AdminScheme
from admin_nmt.initialization.analytic import AnalyticScheme
from admin_nmt.initialization.deepnorm import DeepNormScheme
from admin_nmt.initialization.rezero import ReZeroScheme
from admin_nmt.initialization.scheme import DefaultScheme, Depth, Scheme

#: `--init-type` value -> constructor taking (depth, trainable).
SCHEMES: dict[str, Callable[[Depth, bool], Scheme]] = {
    "admin": AdminScheme,
    "admin-log": partial(AnalyticScheme, logarithmic=True),
    "admin-const": partial(AnalyticScheme, logarithmic=False),
    "deepnorm": DeepNormScheme,
    "rezero": ReZeroScheme,
    "default": DefaultScheme,
}
#: What the help of `--init-type` says of them.
SUMMARIES = {
    "admin": "profiled at the start of training",
    "admin-log": "from depth alone, output change O(log n)",
    "admin-const": "from depth alone, output change O(1)",
    "deepnorm": "constants from depth, smaller weights",
    "rezero": "trained numbers from 0, no LayerNorm",
    "default": "plain; pre-LN with --encoder-normalize-before --decoder-normalize-before",
}
