"""The models that fairseq sees. A model and its named architectures share one file, because
fairseq looks up `MODEL_ARCHS` by file name when it imports a folder of models (`--user-dir`)."""
