"""Pure tensor functions; they know nothing of fairseq or of the rest of the package.

Legend of shape letters, used in all of admin_nmt: B batch, T target (query) length, S source (key)
length, H heads, K head size, D model size, V vocabulary.
"""
