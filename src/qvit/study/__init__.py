"""Studies: many runs from one file, done by several workers and kept in one folder."""
