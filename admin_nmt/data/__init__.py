"""Corpora: download, cleaning, tokenisation, subwords, binarisation, and a synthetic toy corpus."""
