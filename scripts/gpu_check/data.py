"""Binarised data for all stages: the user's, Multi30k, or the quickstart's generated corpus."""

import os
import shutil
from pathlib import Path

from admin_nmt.errors import UserError
from admin_nmt.files import atomic_write, make_directory
from gpu_check.stage import Context


def data_folder(context: Context) -> Path:
    """Binarised data with a joined dictionary; prepared once, kept in the output folder, each kind in a
    folder of its own.

    Raises:
        UserError: Multi30k is not where ADMIN_NMT_MULTI30K says, or preparation failed.
    """
    if context.data is not None:
        return context.data
    from trainings import BIN, run

    multi30k = os.environ.get("ADMIN_NMT_MULTI30K")
    command: list[str | Path] = [BIN / "admin-nmt", "prepare"]
    if multi30k:
        if not (Path(multi30k) / "train.de.gz").exists():
            raise UserError(f"ADMIN_NMT_MULTI30K={multi30k}: no train.de.gz there")
        command += ["multi30k", "--archives", Path(multi30k)]
        kind, merges = "multi30k", 8000
    else:
        kind, merges = ("small", 300) if context.smoke else ("generated", 4000)
        corpus = context.output / f"corpus-{kind}"
        command += ["custom", "--corpus", corpus, "--source-lang", "de", "--target-lang", "en"]
        command += ["--joined-dictionary"]
        if not (corpus / "train.en").exists():  # the file that is written last
            from corpus.grammar import write_corpus

            pairs, held_out = (400, 20) if context.smoke else (20000, 500)
            write_corpus(corpus, num_train=pairs, num_valid=held_out, num_test=held_out, seed=1)
    output = make_directory(context.output) / f"prepared-{kind}"
    run([*command, "--bpe-tokens", str(merges), "--output", output], context.output / "prepare.log")
    return output / "data-bin"


def with_types(data: Path, folder: Path, num_types: int) -> Path:
    """`data` with dictionaries filled up to `num_types` types that never occur; larger ones stay.

    Returns:
        a folder of links beside the dictionaries, and nothing else: what an earlier run made of other
        data is removed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    make_directory(folder)
    for path in data.iterdir():
        target = folder / path.name
        if path.name.startswith("dict."):
            lines = path.read_text(encoding="utf-8").splitlines()
            lines += [f"filler{n:06} 0" for n in range(num_types - 4 - len(lines))]
            with atomic_write(target) as stream:
                stream.write("\n".join(lines) + "\n")
        else:
            target.symlink_to(path.resolve())
    return folder
