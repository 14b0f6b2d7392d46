"""qvit: train, compare and understand quantum vision transformers on biomedical images."""

__version__ = "0.1.0"
