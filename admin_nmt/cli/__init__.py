"""`admin-nmt SUBCOMMAND`: argument parsing only; the work is done by the package's other folders."""
