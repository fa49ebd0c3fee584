"""Errors a user can fix: shown as one line, never as a traceback."""


class UserError(Exception):
    """Something the user gave is wrong: a file, an option, a value.

    The message is one line that names it and says what to do. Command-line programs print the
    message and exit with `exit_code`.
    """

    exit_code = 1


class UsageError(UserError):
    """The command line itself is wrong (unknown choice, options that exclude each other)."""

    exit_code = 2
