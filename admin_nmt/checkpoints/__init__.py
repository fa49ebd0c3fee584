"""What knows a checkpoint file: which of its content may be used, and checks of it."""
