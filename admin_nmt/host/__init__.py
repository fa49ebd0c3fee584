"""What we change in fairseq's programs."""
