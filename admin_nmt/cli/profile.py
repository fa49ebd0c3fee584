"""`admin-nmt profile`: the variances of all sublayers, without training."""

import argparse
import sys

from admin_nmt.outputs import require_files, require_plot

HELP = "measure the ADMIN profile of an architecture on binarised data, without training"
PASSES_OPTIONS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this subcommand; all of fairseq-train's may follow."""
    parser.add_argument("data", metavar="DATA", help="folder made by fairseq-preprocess")
    parser.add_argument("--arch", required=True, help="an admin_transformer architecture")
    parser.add_argument("--output", required=True, metavar="FILE", help="profile to write (JSON)")
    parser.add_argument("--plot", metavar="FILE", help="also draw it (.png, .pdf or .svg)")
    parser.epilog = (
        "Every option of fairseq-train is taken as well, for example --encoder-layers, "
        "--init-type, --max-tokens (default 4096), --seed or --admin-profile-batches."
    )


def run(args: argparse.Namespace) -> None:
    """Measure, write, and draw if asked to."""
    require_files({"--output": args.output, "--plot": args.plot})
    require_plot(args.plot)

    import admin_nmt.registration  # noqa: F401  (before other modules that import fairseq)
    from admin_nmt.analysis.profiling import profile_architecture
    from admin_nmt.initialization.profile import save_profile

    profile = profile_architecture([args.data, "--arch", args.arch, *args.fairseq_args])
    save_profile(profile, args.output)
    measured = profile.measured
    sys.stdout.write(
        f"{args.output}: profile of {len(profile.sublayers)} sublayers, over "
        f"{measured['num_target_tokens']} target tokens\n"
    )
    if args.plot:
        from admin_nmt.analysis.plots import plot_profile

        plot_profile(profile, args.plot)
