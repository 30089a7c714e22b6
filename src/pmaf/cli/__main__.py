"""``python -m pmaf.cli``."""

from pmaf.cli import main

main()
