"""Checkpoints of other repositories as checkpoints that this package and fairseq load.

One file per origin; each has `convert(path) -> Converted`. What they share:

- `reading`: open a file of an old fairseq, and its settings;
- `names`: names and layouts of parameters as fairseq has them today;
- `first_omega`: a trained omega of the first sublayer, which `--init-type admin` fixes at 1;
- `writing`: a complete configuration and the checkpoint around it.
"""
