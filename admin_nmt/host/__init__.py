"""All that we change in fairseq's programs, one topic a file; `patches` has the table."""
