"""Importing this module tells fairseq about everything admin_nmt adds to it."""

import fairseq  # noqa: F401
