"""fairseq's dropout module over `admin_nmt.ops.dropout`."""

from fairseq.modules import FairseqDropout
from torch import Tensor

from admin_nmt.ops.dropout import dropout


class Dropout(FairseqDropout):
    """`FairseqDropout` (with `--retain-dropout`) that draws its masks cheaply on the CPU."""

    @property
    def active_p(self) -> float:
        """Drop probability in force now: `p` in training or with retained dropout, else 0."""
        return self.p if self.training or self.apply_during_inference else 0.0

    def forward(self, x: Tensor, inplace: bool = False) -> Tensor:
        """Drop elements of `x` (any shape). `inplace` is accepted for fairseq's callers."""
        return dropout(x, self.active_p)
