"""What is fast on a CPU, for circuits and for attention: compiled kernels, vectors, parts shared among threads."""
