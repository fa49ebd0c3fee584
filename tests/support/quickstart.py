"""The quickstart, again and again in one process, which forks the programs that it starts; its
trainings are real ones.

`python -m tests.support.quickstart`: each line that it reads is a JSON list of options, each that it
writes [exit code, standard output, standard error].
"""

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module

import trainings
from tests.support import rehearsal


def main() -> None:
    trainings.run = rehearsal.run
    for program in ("train", "generate"):
        import_module(f"fairseq_cli.{program}")
    quickstart = import_module("run").main
    for line in sys.stdin:
        said, complained = io.StringIO(), io.StringIO()
        sys.argv[1:] = json.loads(line)
        with redirect_stdout(said), redirect_stderr(complained):
            try:
                code = quickstart()
            except SystemExit as end:
                code = end.code
        print(json.dumps([code, said.getvalue(), complained.getvalue()]), flush=True)


if __name__ == "__main__":
    main()
