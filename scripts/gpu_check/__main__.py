"""`python -m gpu_check`: the whole check, or with `--process NAME` one stage of it."""

import signal
import sys

import admin_nmt_autoload

admin_nmt_autoload.defer_registration = True  # the conductor and some stages need no fairseq

from gpu_check import run, stage  # noqa: E402

if sys.argv[1:2] == ["--process"]:
    sys.exit(stage.main(sys.argv[2:]))
signal.signal(signal.SIGTERM, signal.default_int_handler)  # the stages end with the conductor
sys.exit(run.main())
