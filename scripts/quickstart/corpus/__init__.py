"""A synthetic German-English corpus: `grammar.write_corpus` writes it."""
