"""fairseq's search for translations in this process; `beam.py` is all of it but the limit on
the length of the output, which other engines share."""
