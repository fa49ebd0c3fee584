"""Looking at models and runs: training logs and plots."""
