"""Compile every Triton kernel for cards that are not here, and say what it takes of them.

    python scripts/gpu_check/compile_ahead.py [--target 80 --target 90 --target 100]

Triton brings NVIDIA's assembler, so neither a GPU nor CUDA is needed. Printed for the sizes of real
models: registers of a thread, bytes of its stack (where registers are spilled to), shared memory of a
program, warps of a program, and how many programs fit on a multiprocessor at once (0: the kernel
cannot run). Exit code 1 if a kernel does not compile or does not fit.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import triton
from tabulate import tabulate
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from admin_nmt.ops import linear_loss_triton, residual_attention_triton, residual_norm_triton

#: Registers and shared memory of a multiprocessor, and what one program may have of the latter.
MULTIPROCESSORS = {
    80: (65536, 164 * 1024, 163 * 1024),
    90: (65536, 228 * 1024, 227 * 1024),
    100: (65536, 228 * 1024, 227 * 1024),
}
THREADS = 2048  # of a multiprocessor
RESERVED = 1024  # bytes of shared memory that the system takes of each program


@dataclass(frozen=True)
class Kernel:
    """One kernel at one size.

    Attributes:
        what: for the table.
        function: the kernel.
        constants: its constexpr arguments.
        floats: its arguments that are floating-point numbers.
        pointers: its arguments that are pointers, and to what; those to the `half` type by default.
        options: with which it is launched.
    """

    what: str
    function: Any
    constants: dict[str, Any]
    floats: tuple[str, ...]
    pointers: dict[str, str] = field(default_factory=dict)
    options: dict[str, int] = field(default_factory=dict)

    def source(self, half: str) -> ASTSource:
        """What Triton compiles: pointers are aligned, as PyTorch's are; other numbers are any."""
        signature, aligned = {}, {}
        for place, parameter in enumerate(self.function.params):
            name = parameter.name
            if parameter.is_constexpr:
                signature[name] = "constexpr"
            elif name in self.pointers or name.endswith("_ptr"):
                signature[name] = f"*{self.pointers.get(name, half)}"
                aligned[(place,)] = [["tt.divisibility", 16]]
            else:
                signature[name] = "fp32" if name in self.floats else "i32"
        return ASTSource(self.function, signature, self.constants, aligned)


def split_launch(arguments: dict[str, int]) -> tuple[dict[str, int], dict[str, int]]:
    """Constants of a kernel, and options of its launch."""
    options = {name: value for name, value in arguments.items() if name.startswith("num_")}
    return {k: v for k, v in arguments.items() if k not in options}, options


def kernels() -> list[Kernel]:
    """Every kernel, at sizes of base and big models, with all of its branches that training takes."""
    found = []
    for passes in (1, 2):
        constants = {"M": passes, "ROWS": passes, "BLOCK": 4096 // passes, "GRADIENT": True}
        found.append(
            Kernel(
                f"loss, {passes} pass{'es' * (passes > 1)}", linear_loss_triton._linear_loss,
                constants, ("target_weight", "each_weight", "alpha", "scale"),
                {"logits": "bf16", "targets": "i64", "stats": "fp32"},
                {"num_warps": 8},
            )
        )  # fmt: skip
    floats = ("scale", "inverse_layers", "dropout_p")
    wide = (
        "prev_ptr",
        "scores_ptr",
        "logsum_ptr",
        "delta_ptr",
        "grad_above_ptr",
        "grad_scores_ptr",
    )
    for size in (64, 128):
        launch, options = split_launch(residual_attention_triton.tiles(size))
        common = {"HAS_BIAS": True, "DROPOUT": True, "DEVICE_SEED": False, **launch}
        for way, carried in (("forward", "HAS_PREV"), ("backward", "HAS_ABOVE")):
            function = getattr(residual_attention_triton, f"_residual_attention_{way}")
            found.append(
                Kernel(
                    f"residual attention {way}, K {size}", function, {carried: True, **common},
                    floats, dict.fromkeys(wide, "fp32"), options,
                )
            )  # fmt: skip
    for dim in (512, 1024):
        launch, options = split_launch(residual_norm_triton.tiles(dim))
        common = {"VECTOR": True, "DROPOUT": True, "DEVICE_SEED": False, **launch}
        for way in ("forward", "backward"):
            more = {"TRAINED": True} if way == "backward" else {}
            found.append(
                Kernel(
                    f"residual norm {way}, D {dim}",
                    getattr(residual_norm_triton, f"_residual_norm_{way}"),
                    {**common, **more}, ("factor", "eps", "p"), {"partial_ptr": "fp32"}, options,
                )
            )  # fmt: skip
    return found


def resources(cubin: bytes) -> tuple[int, int]:
    """Registers and bytes of stack of a thread, as `cuobjdump` reads them."""
    program = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        result = subprocess.run(
            [program, "-res-usage", file.name], capture_output=True, text=True, check=True
        )
    usage = re.search(r"REG:(\d+) STACK:(\d+)", result.stdout)
    assert usage is not None, result.stdout
    return int(usage[1]), int(usage[2])


def programs_at_once(registers: int, shared: int, num_warps: int, capability: int) -> int:
    """How many programs a multiprocessor holds; registers are given out in units of eight a thread."""
    all_registers, all_shared, most_shared = MULTIPROCESSORS[capability]
    if shared > most_shared or registers > 255:
        return 0
    threads = 32 * num_warps
    by_registers = all_registers // (-(-registers // 8) * 8 * threads)
    return min(THREADS // threads, by_registers, all_shared // (shared + RESERVED))


def row(kernel: Kernel, capability: int) -> list[Any]:
    """One line of the table."""
    compiled = triton.compile(
        kernel.source("bf16"), target=GPUTarget("cuda", capability, 32),
        options=kernel.options,
    )  # fmt: skip
    registers, stack = resources(compiled.asm["cubin"])
    shared, warps = compiled.metadata.shared, compiled.metadata.num_warps
    fit = programs_at_once(registers, shared, warps, capability)
    return [kernel.what, f"sm_{capability}", registers, stack, shared, warps, fit]


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", type=int, action="append", choices=list(MULTIPROCESSORS))
    args = parser.parse_args()
    rows = []
    for kernel in kernels():
        for capability in args.target or MULTIPROCESSORS:
            rows.append(row(kernel, capability))
    headers = ["kernel", "card", "registers", "stack bytes", "shared bytes", "warps", "at once"]
    print(tabulate(rows, headers, tablefmt="github"))
    return int(any(line[-1] == 0 for line in rows))


if __name__ == "__main__":
    sys.exit(main())
