"""Scripts to read from top to bottom, and to run from a checkout: `python recipes/train.py --help`."""
