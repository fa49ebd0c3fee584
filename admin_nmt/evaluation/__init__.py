"""After training: average checkpoints, translate, score, compare systems."""
