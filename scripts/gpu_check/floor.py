"""The least time that a training step can take, and its memory: arithmetic over shapes, no measurement.

    python -m gpu_check.floor        (with scripts/ on PYTHONPATH) prints the table of docs/gpu-predictions.md

Two things cannot be avoided. The matrix products run at the rate of the largest ones. What lies
between them reads and writes memory: here every such operation is assumed fused as far as our
kernels fuse it, each byte moved once. Both are added, because an operation between two products
waits for the one and makes the other wait.

Letters: N source positions and M target positions of a batch, padding included, S and T its lengths,
D model size, F inner size of the FFN, V vocabulary, e bytes of an element.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tabulate import tabulate


@dataclass(frozen=True)
class Shape:
    """A Transformer with shared embeddings."""

    name: str
    encoder_layers: int
    decoder_layers: int
    dim: int
    ffn: int
    heads: int
    types: int


@dataclass(frozen=True)
class Work:
    """One batch.

    Attributes:
        source: N, source positions, padding included.
        target: M, target positions, padding included.
        source_length: S.
        target_length: T.
        tokens: target tokens without padding, by which speeds are counted.
    """

    source: int
    target: int
    source_length: int
    target_length: int
    tokens: int

    def times(self, passes: int) -> "Work":
        """The same batch `passes` times at once (R-Drop); tokens count once."""
        return Work(
            passes * self.source, passes * self.target, self.source_length, self.target_length,
            self.tokens,
        )  # fmt: skip


#: A base model of the IWSLT recipes, Transformer big, and the deep model of the ADMIN papers.
IWSLT = Shape("IWSLT 6L-6L", 6, 6, 512, 1024, 4, 10152)
BIG = Shape("big 6L-6L", 6, 6, 1024, 4096, 16, 32768)
DEEP = Shape("60L-12L D=512", 60, 12, 512, 2048, 8, 32768)


def num_parameters(shape: Shape) -> int:
    """Weights of the matrices (biases, LayerNorms and omegas are a thousandth)."""
    attention, ffn = 4 * shape.dim**2, 2 * shape.dim * shape.ffn
    encoder = shape.encoder_layers * (attention + ffn)
    decoder = shape.decoder_layers * (2 * attention + ffn)
    return encoder + decoder + shape.types * shape.dim


def gemm_flops(shape: Shape, work: Work) -> float:
    """Floating-point operations of all matrix products, forward and backward (twice forward).

    A product (a, b) x (b, c) counts 2 a b c; causal self-attention half of its square.
    """
    D, F = shape.dim, shape.ffn
    N, M, S, T = work.source, work.target, work.source_length, work.target_length
    encoder = 8 * N * D * D + 4 * N * D * F + 4 * N * S * D
    self_attention = 8 * M * D * D + 2 * M * T * D
    cross_attention = 4 * M * D * D + 4 * N * D * D + 4 * M * S * D
    decoder = self_attention + cross_attention + 4 * M * D * F
    forward = shape.encoder_layers * encoder + shape.decoder_layers * decoder
    return 3.0 * (forward + 2 * M * D * shape.types)


def least_bytes(shape: Shape, work: Work, e: int = 2) -> dict[str, float]:
    """Bytes that the operations between the matrix products read and write, by class.

    elementwise: residual, dropout and LayerNorm 8 rows of D a sublayer (3 forward, 5 backward);
        activation and dropout of the FFN 5 rows of F (2 forward, 3 backward).
    attention: q, k, v, output forward; these, the gradient of the output and the three gradients
        backward: 12 rows of D, as in kernels that keep no weights.
    loss: the logits read twice and overwritten once by their gradient.
    optimizer: gradient of e bytes read twice (norm, step), a weight of e bytes written, float32
        copy and two moments read and written.
    """
    D, F, N, M = shape.dim, shape.ffn, work.source, work.target
    E, L = shape.encoder_layers, shape.decoder_layers
    sublayers = E * 2 * N + L * 3 * M
    return {
        "elementwise": e * (8.0 * D * sublayers + 5.0 * F * (E * N + L * M)),
        "attention": e * D * (12.0 * E * N + 12.0 * L * M + L * (6.0 * M + 6.0 * N)),
        "loss": e * 3.0 * M * shape.types,
        "optimizer": num_parameters(shape) * (3.0 * e + 24),
    }


def peak_bytes(shape: Shape, work: Work, e: int = 2) -> float:
    """Bytes in use when the backward pass of ours begins, with `--fused-residual-norm` in 16 bits.

    weights: e bytes, float32 copy and two moments. Gradients are made while activations are freed.
    encoder layer: input, q, k, v, what the heads read, output of attention; input, hidden layer and
        output of the FFN. (tests/models/test_activation_memory.py counts them.)
    decoder layer: the same and, of encoder-decoder attention, input, q, what the heads read, output,
        and k and v of the source.
    """
    D, F, N, M = shape.dim, shape.ffn, work.source, work.target
    encoder = shape.encoder_layers * N * (8 * D + F)
    decoder = shape.decoder_layers * (M * (12 * D + F) + N * 2 * D)
    return float(num_parameters(shape) * (e + 12) + e * (encoder + decoder))


def floor_seconds(shape: Shape, work: Work, matmul_rate: float, copy_rate: float) -> float:
    """Least seconds of a step.

    Args:
        shape: the model.
        work: the batch.
        matmul_rate: floating-point operations a second.
        copy_rate: bytes read and written a second.
    """
    moved = sum(least_bytes(shape, work).values())
    return gemm_flops(shape, work) / matmul_rate + moved / copy_rate


def even_work(tokens: int, length: int, passes: int = 1) -> Work:
    """A batch without padding: `tokens` tokens on either side in sentences of `length`."""
    return Work(tokens, tokens, length, length, tokens).times(passes)


def predictions(
    cases: Sequence[tuple[Shape, int, int]], matmul_rate: float, copy_rate: float, length: int
) -> str:
    """A table of floors for (shape, tokens, passes) at stated rates."""
    rows = []
    for shape, tokens, passes in cases:
        work = even_work(tokens, length, passes)
        flops, moved = gemm_flops(shape, work), sum(least_bytes(shape, work).values())
        seconds = floor_seconds(shape, work, matmul_rate, copy_rate)
        rows.append(
            [shape.name + (" R-Drop" if passes > 1 else ""), tokens, flops / 1e12,
             1e3 * flops / matmul_rate, moved / 1e9, 1e3 * moved / copy_rate, 1e3 * seconds,
             round(tokens / seconds, -3), peak_bytes(shape, work) / 2**30]
        )  # fmt: skip
    headers = [
        "model", "tokens", "TFLOP", "ms", "GB moved", "ms", "floor ms", "tokens/s", "peak GiB",
    ]  # fmt: skip
    formats = (".0f", ".0f", *[".2f"] * 5, ".0f", ".1f")
    return tabulate(rows, headers, tablefmt="github", floatfmt=formats)


def main() -> None:
    """The table of docs/gpu-predictions.md."""
    cases = [(DEEP, tokens, 1) for tokens in (4096, 8192, 16384)]
    cases += [(DEEP, 4096, 2), (BIG, 4096, 1), (IWSLT, 4096, 1)]
    print(predictions(cases, matmul_rate=800e12, copy_rate=3.0e12, length=16))


if __name__ == "__main__":
    main()
