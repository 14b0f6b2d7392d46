"""`python -m qvit`."""

from qvit.cli import main

main()
