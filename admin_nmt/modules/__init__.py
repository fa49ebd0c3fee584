"""Layers: residual connections, attention, dropout, encoder and decoder layer; and how they run on a GPU
(CUDA graphs, `torch.compile`)."""
