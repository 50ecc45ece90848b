"""What the forkserver imports before the first fork."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import matplotlib.backends.backend_agg
import matplotlib.figure  # noqa: F401
import sklearn.datasets
import sklearn.model_selection  # noqa: F401
import torch.utils.tensorboard  # noqa: F401

import recipes.train  # noqa: F401
