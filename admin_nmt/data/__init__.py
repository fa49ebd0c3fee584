"""Corpora: download, cleaning, tokenisation, subwords and binarisation."""
