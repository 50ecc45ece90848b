"""Whatever is saved, copied or sent to another process goes on as if nothing had happened."""

from __future__ import annotations

import copy
import io
import pickle
import sys

import torch

from ..catalogue import FULL, HALF, check
from ..trial import Trial, only_parameters, parameters_of, ready
from ..verdict import NotAsked, OptimizerError


@check(*FULL, *HALF)
def check_checkpoint(trial: Trial) -> None:
    """A ``state_dict`` through a file, loaded into a new optimizer, continues with the same bits."""
    middle = trial.steps // 2
    params = trial.parameters()
    optimizer = trial.optimizer(params)
    trial.run(optimizer, 0, middle)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    twins = trial.copies(params)
    loaded = trial.optimizer(twins)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    after = only_parameters(trial.run(ready(loaded), middle))
    expected = only_parameters(trial.run(ready(optimizer), middle))
    trial.compare("after a checkpoint", after, "without", expected, first=middle, exact=True)


@check()
def check_fresh_checkpoint(trial: Trial) -> None:
    """The ``state_dict`` of an optimizer that has taken no step can be loaded, and brings its options."""
    optimizer = trial.optimizer(trial.parameters())
    changed = {}
    for name, value in optimizer.param_groups[0].items():
        if name in ("lr", "weight_decay", "eps") and isinstance(value, float):
            changed[name] = optimizer.param_groups[0][name] = value / 2 + 1e-3
    loaded = trial.optimizer(trial.parameters())
    loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for name, value in changed.items():
        if loaded.param_groups[0][name] != value:
            raise OptimizerError(
                f"{name} was {value} when saved, and is {loaded.param_groups[0][name]} when loaded"
            )
    expected = only_parameters(trial.run(ready(optimizer)))
    trial.compare(
        "a checkpoint of the start", only_parameters(trial.run(ready(loaded))), "itself", expected, exact=True
    )


@check()
def check_deep_copy(trial: Trial) -> None:
    """A deep copy continues as the original, and leaves that alone."""
    middle = trial.steps // 2
    optimizer = trial.optimizer(trial.parameters())
    trial.run(optimizer, 0, middle)
    copied = copy.deepcopy(optimizer)
    # Not exact: a deep copy has no gaps in memory, so another kernel may take it.
    after = only_parameters(trial.run(copied, middle))
    expected = only_parameters(trial.run(optimizer, middle))
    trial.compare("a deep copy", after, "itself", expected, first=middle)


@check()
def check_pickle(trial: Trial) -> None:
    """Pickled together with its parameters it continues, as in another process."""
    middle = trial.steps // 2
    params = trial.parameters()
    optimizer = trial.optimizer(params)
    cls = type(optimizer)
    if getattr(sys.modules.get(cls.__module__), cls.__qualname__, None) is not cls:
        raise NotAsked("pickle finds no class by this name in its module, as where a function has made it")
    trial.run(optimizer, 0, middle)
    for param in params:
        param.grad = None
    pickled = pickle.loads(pickle.dumps(optimizer))
    if len(parameters_of(pickled)) != len(params):
        raise OptimizerError(
            f"{len(parameters_of(pickled))} of {len(params)} parameters come back from pickle"
        )
    after = only_parameters(trial.run(pickled, middle))
    expected = only_parameters(trial.run(optimizer, middle))
    trial.compare("pickled and back", after, "itself", expected, first=middle)
