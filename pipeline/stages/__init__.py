"""The pipeline, a file per stage: plain values in, a small frozen dataclass out."""
