"""Whether Triton's kernels run in its interpreter."""

import os

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
