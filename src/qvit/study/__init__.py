"""Studies: many runs described by one file, done by several workers and kept in one folder."""
