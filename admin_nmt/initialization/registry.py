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
