"""Layers: residual connections, attention, dropout, encoder and decoder layer."""
