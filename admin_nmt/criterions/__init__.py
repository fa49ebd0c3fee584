"""Training criterions: thin fairseq classes around the losses in `admin_nmt.ops`."""
