"""`python -m gpu_check`: the whole check, or with `--process NAME` one stage of it."""

import sys

import admin_nmt_autoload

admin_nmt_autoload.defer_registration = True  # the conductor and some stages need no fairseq

from gpu_check import run, stage  # noqa: E402

if sys.argv[1:2] == ["--process"]:
    sys.exit(stage.main(sys.argv[2:]))
sys.exit(run.main())
