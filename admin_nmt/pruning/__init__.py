"""Attention heads: how much each matters, which to remove, and removing them.

The method of "Are Sixteen Heads Really Better than One?" (Michel, Levy and Neubig 2019,
arXiv 1905.10650), for encoder self-, decoder self- and encoder-decoder attention.
"""
