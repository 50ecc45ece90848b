"""A parameter group as compiled code sees it: what is asked of options and tensors, and computed of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from .assignment import Declared
from .bucket import Bucket, Update
from .group import Group
from .native import frame as f
from .native import step as native
from .register_code import ImpossibleError, RegisterCode
from .rule.coefficients import read_coefficients
from .rule.number_program import NumberProgram
from .rule.searches import Wanted


class Optimizer(Declared, Protocol):
    """What is asked of an optimizer whose step is prepared."""

    rule: Any
    _plan_options: tuple[str, ...]


class PreparedGroup:
    """The frame of one group, with the arrays that it has the addresses of.

    Args:
        first: the place of its first bucket among those of all groups.

    Attributes:
        address: of the frame.
        buckets: the group's.
        programs: what computes the coefficients, for each bucket.
        updates: once the frame is found to hold, what the coming step has to do for each bucket; ``None``
            instead, if that must be prepared in the usual way.
        is_compiled: whether compiled code can do that by itself.
        devices: the types of those that its parameters are on.
        searches: the numbers over several tensors that its rule asks for, search by search.
        renewed: the new values of the options that the rule renews, after a step.

    Raises:
        ImpossibleError: the group has to be stepped the usual way.
        CompilationError: an engine prepares each step for itself.
    """

    def __init__(self, optimizer: Optimizer, group: Group, first: int) -> None:
        if group.rest.positions or group.is_distributed:
            raise ImpossibleError
        if optimizer._parsed_rule.renews and not group.buckets:  # nobody computes its options' new values
            raise ImpossibleError
        self.buckets = list(group.buckets)
        self._plan = list(group.buckets), list(group.unknown)
        self.updates: list[Callable[[], Update | None]] = []
        self.is_compiled = True
        self._options = optimizer.param_groups[group.index]
        self.devices = {param.device.type for param in self._options["params"]}
        self._kept: list[Any] = []  # what the frames have the addresses of
        self.programs: list[NumberProgram] = []
        self._words: list[dict[int, int]] = []
        self._inputs: dict[tuple[str, int | None], list[int]] = {}

        self.renewed = np.zeros(len(optimizer._parsed_rule.renews) + 1)
        self.searches: tuple[tuple[Wanted, ...], ...] = ()

        self._guard_fixed(optimizer)
        for bucket in self.buckets:
            self._words.append(self._of_bucket(optimizer, group, bucket))
        self._frame = np.zeros(f.GROUP_WORDS, dtype=np.int64)
        self.address = int(self._frame.ctypes.data)
        unknown = np.array(group.unknown, dtype=np.int64)
        inputs = np.array(list(self._inputs.values()), dtype=np.int64)
        fixed = np.array(self._fixed, dtype=np.int64)
        for word, value in {
            f.BUCKETS_FROM: first,
            f.BUCKETS_TO: first + len(self.buckets),
            f.PARAM_COUNT: len(self._options["params"]),
            f.PARAMS_NAME: self._id("params"),
            f.FIXED: self._keep(fixed),
            f.FIXED_COUNT: len(self._fixed),
            f.INPUTS: self._keep(inputs),
            f.INPUT_COUNT: len(self._inputs),
            f.VALUES: self._keep(np.zeros(len(self._inputs) + 1)),
            f.UNKNOWN: self._keep(unknown),
            f.UNKNOWN_COUNT: len(unknown),
            f.RENEWED: self._keep(self.renewed),
        }.items():
            self._frame[word] = value
        del self._options

    def fits(self, group: Group) -> bool:
        """Whether the group's plan is the one that was prepared."""
        return self._plan == (group.buckets, group.unknown)

    def arm(self) -> None:
        """Put back into the buckets' frames what a step of the usual way has overwritten."""
        for bucket, words in zip(self.buckets, self._words, strict=True):
            for word, value in words.items():
                bucket.guards.frame[word] = value

    # -- options ---------------------------------------------------------------------------------------

    def _guard_fixed(self, optimizer: Optimizer) -> None:
        """Options that the plan depends on: truth values must be the same, numbers as true as they were."""
        self._fixed: list[tuple[int, int]] = []
        for name in optimizer._plan_options:
            value = self._options.get(name)
            if type(value) in (int, float):
                self._input((name, None))[f.TRUTH] = f.NOT_ZERO if value else f.ZERO
            else:
                self._fix(name)

    def _fix(self, name: str) -> None:
        value = self._options.get(name)
        if not (value is None or isinstance(value, bool | str | torch.dtype)):
            raise ImpossibleError
        self._fixed.append((self._id(name), self._id(value) if name in self._options else 0))

    def _input(self, place: tuple[str, int | None]) -> list[int]:
        """The row of a number among the inputs."""
        if place not in self._inputs:
            name, index = place
            value, length = self._options[name], 0
            if index is not None:
                if type(value) is not tuple:
                    raise ImpossibleError
                length, value = len(value), value[index]
            whole = type(value) is int
            position = -1 if index is None else index
            self._inputs[place] = [self._id(name), position, length, id(type(value)), whole, f.ANY]
        return self._inputs[place]

    def _keep(self, array: np.ndarray[Any, Any]) -> int:
        self._kept.append(array)
        return int(array.ctypes.data)

    def _id(self, value: object) -> int:
        self._kept.append(value)
        return id(value)

    # -- coefficients ----------------------------------------------------------------------------------

    def _of_bucket(self, optimizer: Optimizer, group: Group, bucket: Bucket) -> dict[int, int]:
        """The words of a bucket's frame that say how it is updated."""
        present = bucket.guards.absent == 0
        if not present.any() or group.options.rounding == "stochastic":
            raise ImpossibleError
        age = float(bucket.guards.ages[present][0]) + 1 if optimizer._counts_steps else None
        program, values = self._read(optimizer, None if age is None else age + 1)
        specialize = optimizer._parsed_rule.specialize
        specialization = specialize(group.options.states, bool(self._options["maximize"]), values)
        if specialization.program is None or specialization.renewal is None:
            raise ImpossibleError
        ahead = bucket.prepare_ahead(specialization, program)
        searches = specialization.searches
        if (searches or optimizer._parsed_rule.renews) and (
            ahead.update or len(ahead.searches) < len(searches)
        ):
            raise ImpossibleError
        wanted = tuple(search.wanted for search in searches)
        if self.programs[1:] and wanted != self.searches:
            raise ImpossibleError
        self.searches = wanted
        programs = [*(search.program for search in searches), specialization.program, specialization.renewal]
        code = RegisterCode(program, programs, sum(map(len, wanted)), self._input_number)
        results = [code.registers_of(each.numbers) for each in programs[:-1]]
        results[-1] = [*results[-1], *map(code.moved, ahead.registers)]
        results.append(code.registers_of(specialization.renewal.results))
        stages = [
            {**words, f.WIDTH: len(each), f.RESULTS: self._keep(np.array(each, dtype=np.int64))}
            for words, each in zip([*ahead.searches, ahead.words, {}], results, strict=True)
        ]
        rows = [[stage.get(f.KERNEL + k, 0) for k in range(f.STAGE_WORDS)] for stage in stages]
        count, width = len(bucket.positions), max(map(len, results))
        numbers = np.zeros(count * width + 1)
        self.updates.append(
            partial(_by_compiled_code, bucket.guards.address)
            if ahead.update is None
            else partial(_by_torch, ahead.update, numbers[: len(results[-2])])
        )
        self.is_compiled &= ahead.update is None
        return {
            **stages[-2],
            f.STAGES: self._keep(np.array(rows, dtype=np.int64)),
            f.FOUND: code.found,
            f.NUMBERS: self._keep(numbers),
            f.SETS: self._keep(np.zeros(count, dtype=np.int64)),
            f.ASKS_FIRST: optimizer._asks_first,
            f.PROGRAM: self._keep(code.text),
            f.OPERATIONS: code.operations,
            f.OF_OPTIONS: code.of_options,
            f.CONDITIONS: code.conditions,
            f.FIRST_RESULT: code.first_result,
            f.REGISTERS: self._keep(code.registers),
            f.STEP_REGISTER: code.step_register,
            f.REGISTER_INPUTS: self._keep(code.inputs),
            f.REGISTER_INPUT_COUNT: len(code.inputs) // 2,
        }

    def _read(self, optimizer: Optimizer, step: float | None) -> tuple[NumberProgram, dict[str, Any]]:
        options = optimizer._coefficient_options(self._options)
        if any(isinstance(value, Tensor) for value in options.values()):
            raise ImpossibleError
        first = False if optimizer._asks_first else None
        program = read_coefficients(optimizer.coefficients, options, step=step, first=first)
        if isinstance(program, str):
            raise ImpossibleError
        for (name, index), value in program.fixed.items():
            if name == "first" or (index is None and value is tuple):
                continue
            if index is not None:
                raise ImpossibleError
            self._fix(name)
        numbers = program.values(options, step=step, first=first)
        registers = None if numbers is None else program.evaluate(numbers)
        if registers is None:
            raise ImpossibleError
        self.programs.append(program)
        return program, program.coefficients(registers)

    def _input_number(self, place: tuple[str, int | None]) -> int:
        """Where a number of the options stands among the values that are read in each step."""
        self._input(place)
        return list(self._inputs).index(place)


def _by_compiled_code(bucket: int) -> Update:
    return partial(native.run, bucket)


def _by_torch(
    update: Callable[[list[float]], Update | None], numbers: np.ndarray[Any, np.dtype[np.float64]]
) -> Update | None:
    return update(numbers.tolist())
