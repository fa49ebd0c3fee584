"""Optimizers for fairseq over those of PyTorch."""
