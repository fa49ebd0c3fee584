"""Programs of fairseq start sooner: scikit-learn, SciPy's statistics and PyTorch's compiler are imported
when they are used.

Two modules of fairseq, an audio task and a criterion for sentence classification, import the two
libraries in every program. They get stand-ins, whose functions import the real ones when they are called.
A stand-in is in `sys.modules` only while one of these two modules runs; everybody else imports the
libraries.

PyTorch's optimizers import the compiler to have it leave some of their methods alone. Where nothing has
imported it, nothing is compiled either, and the methods are called as they are. (The `step` of PyTorch's own
Adam, AdamW, SGD, Adagrad and Adadelta imports it all the same.)
"""

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import FunctionType, ModuleType
from typing import Any

from admin_nmt.host.patch import Addition, Scope, topics_left_out

#: The modules that import them.
ASKING = ("fairseq.tasks.audio_classification", "fairseq.criterions.sentence_prediction")
#: All that they import of them.
LIBRARIES = ("sklearn.metrics", "scipy.stats")
#: PyTorch's compiler.
COMPILER = "torch._dynamo"
#: Where `torch._disable_dynamo` keeps, on a function, the form of it that the compiler leaves alone.
KEPT = "__dynamo_disable"


def stand_in(library: str) -> ModuleType:
    """A module whose functions import those of the real `library` when they are called."""

    def deferred(name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args: Any, **kwargs: Any) -> Any:
            return getattr(importlib.import_module(library), name)(*args, **kwargs)

        return call

    module = ModuleType(library)
    module.__getattr__ = deferred  # type: ignore[method-assign]
    return module


def stand_ins() -> dict[str, ModuleType]:
    """Name -> module, with packages, for the `LIBRARIES` that are not imported yet."""
    found = {}
    for library in LIBRARIES:
        package, _, name = library.partition(".")
        if package not in sys.modules:
            found[library] = stand_in(library)
            found[package] = ModuleType(package)
            setattr(found[package], name, found[library])
    return found


class _WithStandIn(Loader):
    """Runs a module while the stand-ins are there."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # As in admin_nmt_autoload: the module itself keeps the loader it would have had.
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        added = stand_ins()
        sys.modules.update(added)
        try:
            self.loader.exec_module(module)
        finally:
            for name in added:
                del sys.modules[name]


class _Finder(MetaPathFinder):
    """Finds the modules of `ASKING`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in ASKING:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _WithStandIn(spec.loader)
        return spec


def install() -> Callable[[], None]:
    """Wait for the modules of `ASKING`; returns what ends it."""
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    return lambda: sys.meta_path.remove(finder)


def install_early() -> None:
    """`install` before fairseq is imported, unless `ADMIN_NMT_WITHOUT=starting`."""
    if "starting" not in topics_left_out():
        install()


def _register() -> Callable[[], None]:
    """scikit-learn and SciPy's statistics, which fairseq imports in every program for an audio task and a
    criterion for classification, are imported when these use them: programs start a third sooner."""
    return (lambda: None) if any(name in sys.modules for name in ASKING) else install()


def without_compiler(owner: type) -> Callable[[], None]:
    """Have the methods of a class that `torch._disable_dynamo` decorates not import the compiler; returns
    what takes it back. Of a PyTorch that decorates in another way nothing is changed."""
    changed = []
    for method in vars(owner).values():
        if not isinstance(method, FunctionType) or KEPT not in method.__code__.co_consts:
            continue
        plain = method.__wrapped__  # type: ignore[attr-defined]
        if not hasattr(plain, KEPT):
            setattr(plain, KEPT, _plain_until_compiling(method, plain))
            changed.append(plain)

    def restore() -> None:
        for plain in changed:
            vars(plain).pop(KEPT, None)

    return restore


def _plain_until_compiling(decorated: Callable, plain: Callable) -> Callable:
    """`plain` until the compiler is imported; then `decorated` does again what it does without us."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if COMPILER not in sys.modules:
            return plain(*args, **kwargs)
        vars(plain).pop(KEPT, None)
        return decorated(*args, **kwargs)

    return call


def _optimizers_without_compiler() -> Callable[[], None]:
    """PyTorch's compiler, which the first optimizer imports to have it leave some of its methods alone, is
    imported only by what compiles: trainings with `radam`, and others whose step is not PyTorch's own, start
    two to three seconds sooner."""
    from torch.optim import Optimizer

    return without_compiler(Optimizer)


PATCHES = (
    Addition("sys.meta_path", _register, Scope.ALL),
    Addition("torch.optim.Optimizer", _optimizers_without_compiler, Scope.ALL),
)
