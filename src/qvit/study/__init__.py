"""Comparisons across runs: tables and pictures, read from run folders."""
