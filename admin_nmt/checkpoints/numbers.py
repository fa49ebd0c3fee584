"""Numpy's numbers in a checkpoint: rebuilt by functions that accept plain numeric types only.

A pickle rebuilds an array by calling `numpy.dtype`, `numpy.ndarray`, `_reconstruct` and `scalar` with
arguments from the file. Numpy trusts them: a forged data type reaches numpy as a half-made object,
a forged shape as an allocation of any size. PyTorch's safe reader therefore gets the functions of
this module under those names. They refuse object, structured, text and time types, and data whose
size is not that of the shape; what they return are ordinary numpy arrays and scalars.
"""

import math
from typing import Any

import numpy as np

from admin_nmt.errors import UserError

#: Kinds of numpy types that a checkpoint may hold: truth values, integers, floating point.
_KINDS = "biuf"
#: Most dimensions of an array.
_MAX_DIMS = 32


class ForbiddenNumbersError(UserError):
    """Numpy data of a kind that no checkpoint of fairseq holds."""


class PlainType:
    """A numeric type without fields; pickles give its byte order afterwards, as a state."""

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype = dtype

    def __setstate__(self, state: Any) -> None:
        if (
            not isinstance(state, tuple)
            or len(state) not in (8, 9)
            or state[1] not in tuple("<>|=")
        ):
            raise ForbiddenNumbersError("a damaged numpy type")
        if any(part is not None for part in state[2:5]) or len(state) == 9:
            raise ForbiddenNumbersError("a structured numpy type")
        self.dtype = self.dtype.newbyteorder(state[1])


def plain_type(code: Any, *_: Any) -> PlainType:
    """In place of `numpy.dtype`.

    Raises:
        ForbiddenNumbersError: `code` is not that of a plain numeric type, such as `f8`.
    """
    try:
        dtype = np.dtype(code) if isinstance(code, str) else None
    except TypeError:
        dtype = None
    if dtype is None or dtype.kind not in _KINDS or dtype.shape or dtype.names:
        raise ForbiddenNumbersError(f"the numpy type {str(code)[:40]!r}, which is not numeric")
    return PlainType(dtype)


class PlainArray(np.ndarray):
    """An array that fills itself only with checked data; pickled it is an ordinary `ndarray`."""

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise ForbiddenNumbersError("a damaged numpy array")
        version, shape, kind, fortran, data = state
        if not isinstance(kind, PlainType):
            raise ForbiddenNumbersError("a numpy array of no plain type")
        _require_size(shape, kind, data)
        whole: Any = (version, shape, kind.dtype, bool(fortran), data)
        super().__setstate__(whole)

    def __reduce__(self) -> Any:
        return self.view(np.ndarray).__reduce__()


def _require_size(shape: Any, kind: PlainType, data: Any) -> None:
    dims = isinstance(shape, tuple) and len(shape) <= _MAX_DIMS
    if not dims or not all(type(size) is int and size >= 0 for size in shape):
        raise ForbiddenNumbersError("a numpy array of a damaged shape")
    if not isinstance(data, bytes) or len(data) != math.prod(shape) * kind.dtype.itemsize:
        raise ForbiddenNumbersError(f"a numpy array whose data do not fill its shape {shape}")


def plain_array(kind: Any, *_: Any) -> PlainArray:
    """In place of `_reconstruct`: an empty array, whose content follows as a state.

    Raises:
        ForbiddenNumbersError: of another class than `numpy.ndarray`.
    """
    if kind is not ARRAY_CLASS:
        raise ForbiddenNumbersError("a numpy array of a class of its own")
    return PlainArray((0,), np.uint8)


def plain_scalar(kind: Any, data: Any = None) -> Any:
    """In place of `scalar`: one number from its bytes.

    Raises:
        ForbiddenNumbersError: of no plain type, or another number of bytes than the type has.
    """
    if not isinstance(kind, PlainType):
        raise ForbiddenNumbersError("a numpy number of no plain type")
    if isinstance(data, str):  # as pickle protocol 2 keeps bytes
        data = data.encode("latin1")
    _require_size((), kind, data)
    return np.frombuffer(data, kind.dtype)[0]


def plain_bytes(*arguments: Any) -> bytes:
    """In place of `bytes`, which pickle protocol 2 calls for data without a byte.

    Raises:
        ForbiddenNumbersError: called with an argument, for example a size to allocate.
    """
    if arguments:
        raise ForbiddenNumbersError("a call of bytes with arguments")
    return b""


class _ArrayClass:
    """Stands for `numpy.ndarray`, which pickles name but must not call."""

    def __call__(self, *arguments: Any) -> None:
        raise ForbiddenNumbersError("a numpy array of a size to allocate")


ARRAY_CLASS = _ArrayClass()

#: For `torch.serialization.add_safe_globals`: (what to use, the name it has in files).
#: Module names of numpy 2 and 1; a file may be from either.
NUMPY_GLOBALS: tuple[Any, ...] = (
    (plain_type, "numpy.dtype"),
    (ARRAY_CLASS, "numpy.ndarray"),
    (plain_bytes, "builtins.bytes"),
    *((plain_array, f"numpy.{core}.multiarray._reconstruct") for core in ("_core", "core")),
    *((plain_scalar, f"numpy.{core}.multiarray.scalar") for core in ("_core", "core")),
    PlainType,
    PlainArray,
)
