"""Fast code for CPUs, used by circuits and attention: compiled kernels, vectors, parts shared among threads."""
