"""fairseq's search for translations in this process; `beam.py` is all of it."""
