"""After training: translate, score, compare systems, validation loss."""
