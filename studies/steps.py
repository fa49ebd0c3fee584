"""Steps that studies on real text share: a training, its scores, and what a training is given."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from studies import study
from studies.chain import Step, step

#: `fairseq-train` of narrow models on Multi30k: BLEU after every second epoch chooses the best.
COMMON = [
    "--eval-bleu-args",
    '{"beam": 1, "max_len_a": 1.2, "max_len_b": 10}',
    *"--bf16 --arch admin_transformer --share-all-embeddings --encoder-attention-heads 4 "
    "--decoder-attention-heads 4 --dropout 0.2 --optimizer radam --adam-betas (0.9,0.98) --lr 2e-3 "
    "--lr-scheduler inverse_sqrt --warmup-updates 500 --warmup-init-lr 1e-7 --label-smoothing 0.1 "
    "--max-tokens 1500 --num-workers 0 --log-format json --log-interval 50 --keep-last-epochs 1 "
    "--validate-interval 2 --eval-bleu --eval-bleu-detok moses --eval-bleu-remove-bpe "
    "--best-checkpoint-metric bleu --maximize-best-checkpoint-metric".split(),
]
PLAIN = "--criterion admin_label_smoothed_cross_entropy"
RDROP = "--criterion label_smoothed_cross_entropy_rdrop --rdrop-alpha"
PRE_LN = "--init-type default --encoder-normalize-before --decoder-normalize-before"
#: Of a pruned model.
FINE_TUNING = "--lr 1e-3 --warmup-updates 100 --max-epoch 4"


def training(
    data: Path, folder: Path, device: str, seed: int, *options: str | Sequence[object]
) -> tuple[object, ...]:
    """`fairseq-train` into `folder`.

    Args:
        data: folder of `admin-nmt prepare`.
        folder: of the checkpoints.
        device: a key of `study.DEVICES`.
        seed: of everything.
        options: after `COMMON`, as one string or as words; later ones win.
    """
    words = [
        word for some in options for word in (shlex.split(some) if isinstance(some, str) else some)
    ]
    return (
        "fairseq-train", data, *study.DEVICES[device], *COMMON, *words, "--seed", seed,
        "--save-dir", folder,
    )  # fmt: skip


def scored(name: str, data: Path, checkpoint: Path, device: str, folder: Path) -> Step:
    """`admin-nmt evaluate` of a checkpoint on the test set, into `folder`."""
    return step(
        name, "admin-nmt", "evaluate", data, "--path", checkpoint, *study.DEVICES[device],
        "--output", folder,
    )  # fmt: skip
