"""Training scripts that are read from top to bottom: `python recipes/train.py --help`."""
