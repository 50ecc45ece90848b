"""An optimizer as an object of JavaScript: its options, its coefficients and its rule, for all choices."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import product
from typing import Any

import torch
from torch.nn import Parameter

from ..elementwise import ElementwiseOptimizer
from ..engines.rule.coefficients import read_coefficients
from ..engines.rule.number_program import NumberProgram, places
from ..engines.rule.parsed import ParsedRule
from .javascript import choices_key, coefficients_text, key, rule_text
from .options import Slider, sliders_and_switches

MOST_STEPS = 1000
# Steps at which other choices of coefficients are looked for; with the first options all steps are.
_STEPS = [float(step) for step in (1, 2, 3, 4, 5, 6, 7, 10, 20, 50, 100, 300, MOST_STEPS)]
_MOST_PATTERNS = 512


class PlaygroundError(TypeError):
    """An optimizer that cannot be on the page, with the reason."""


class Optimizer:
    """All that the page needs to know of a class.

    Args:
        cls: a subclass of :class:`~torchopt_course.ElementwiseOptimizer`; all its options must have defaults.

    Raises:
        PlaygroundError: it is none; its rule or its coefficients cannot be printed as JavaScript.
    """

    def __init__(self, cls: Any) -> None:
        self.cls, self.name = cls, getattr(cls, "__name__", str(cls))
        if not isinstance(cls, type) or not issubclass(cls, ElementwiseOptimizer):
            raise PlaygroundError(f"{self.name} is no subclass of torchopt_course.ElementwiseOptimizer")
        self._group = self._group_of({})
        if isinstance(self._group, str):
            raise PlaygroundError(f"{self.name}(params) without more: {self._group}")
        if cls.transforms:
            raise PlaygroundError(f"{self.name} has transforms, and the page knows of rules alone")
        needs = inspect.signature(cls.coefficients).parameters
        self._needs = [name for name in needs if name not in ("step", "first")]
        self._counts, self._asks_first = "step" in needs, "first" in needs
        used = {name: self._group[name] for name in (*self._needs, *cls.optional_states.values())}
        self.sliders, self.switches, self._rest = sliders_and_switches(cls, used)
        self.sliders = [self._fitted(slider) for slider in self.sliders]
        self._formula = ParsedRule(self.name, cls.rule, (*cls.states, *cls.optional_states))
        self._programs: list[NumberProgram] = []
        self._rules: dict[str, str] = {}
        self._refused: dict[str, str] = {}
        self._read()

    def text(self) -> str:
        """The object."""
        facts = {
            "name": self.name,
            "summary": _unmarked((inspect.getdoc(self.cls) or "").partition("\n")[0]),
            "source": "\n".join(map(_source, (self.cls.rule, self.cls.coefficients))),
            "sliders": [
                {"key": _key(slider), "scale": slider.scale, "low": slider.low, "high": slider.high,
                 "value": slider.value}
                for slider in self.sliders
            ],
            "switches": self.switches,
            "states": [
                {"name": name, "option": option, "start": self._start(name)}
                for name, option in {**dict.fromkeys(self.cls.states), **self.cls.optional_states}.items()
            ],
            "rest": {
                json.loads(key(place)): value
                for place, value in places(self._rest)
                if not isinstance(value, type)
            },
            "refused": self._refused,
        }  # fmt: skip
        coefficients = ",\n".join(coefficients_text(self.name, program) for program in self._programs)
        rules = ",\n".join(f"{json.dumps(choices)}: {text}" for choices, text in self._rules.items())
        return f"{{...{json.dumps(facts)},\ncoefficients: [\n{coefficients}],\nrules: {{\n{rules}}}}}"

    # -- reading -------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """All ways that coefficients and rule take, for all that the page offers."""
        for values, says_which_are_zero in self._patterns():
            group = self._group_of(self._options(values))
            if isinstance(group, str):
                if says_which_are_zero:
                    self._refused[_pattern_key(values)] = group.partition(", got ")[0]
                continue
            steps = map(float, range(1, MOST_STEPS + 1)) if values == self._first_values() else _STEPS
            for step in steps if self._counts else [None]:
                for first in (True, False) if self._asks_first else [None]:
                    self._see(group, step, first)
        if not self._rules:
            raise PlaygroundError(f"{self.name}: the page offers no options that it takes")

    def _see(self, group: Mapping[str, Any], step: float | None, first: bool | None) -> None:
        options = {name: group[name] for name in self._needs}
        results = None
        for program in self._programs:
            values = program.values(options, step=step, first=first)
            registers = None if values is None else program.evaluate(values)
            if registers is not None:
                results = program.coefficients(registers)
                break
        else:
            new = read_coefficients(self.cls.coefficients, options, step=step, first=first)
            if isinstance(new, str):
                if new.startswith(("makes an error", "computes")):  # where Python has no number either
                    return
                raise PlaygroundError(f"{self.name}.coefficients {new}: no JavaScript can be made of it")
            self._programs.append(new)
            results = new.coefficients(new.evaluate(new.values(options, step=step, first=first) or []) or [])
        kept = self._kept(group)
        choices = choices_key(kept, results)
        if choices not in self._rules:
            variant = self._formula.specialize(kept, False, results)
            if variant.program is None or not variant.is_elementwise:
                raise PlaygroundError(f"{variant.reason}: no JavaScript can be made of it")
            try:
                self._rules[choices] = rule_text(f"{self.name}.rule", variant.program, kept)
            except NotImplementedError as error:
                raise PlaygroundError(str(error)) from error

    def _kept(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        optional = self.cls.optional_states
        return (*self.cls.states, *(name for name, option in optional.items() if group[option]))

    def _first_values(self) -> dict[str, Any]:
        return {_key(slider): slider.value for slider in self.sliders} | self.switches

    def _patterns(self) -> Iterator[tuple[dict[str, Any], bool]]:
        """Options with which other ways may be taken; and whether they stand for all with the same zeros."""
        first = self._first_values()
        yield first, False
        for slider in self.sliders:
            for value in (slider.low, slider.high):
                yield first | {_key(slider): value}, False
        zeros = [(0.0, slider.value or slider.high / 2) if _reaches_zero(slider) else (slider.value,)
                 for slider in self.sliders]  # fmt: skip
        several = product(*zeros, *[(False, True)] * len(self.switches))
        for _, values in zip(range(_MOST_PATTERNS), several, strict=False):
            yield dict(zip(first, values, strict=True)), True

    def _options(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Options as the constructor takes them."""
        options: dict[str, Any] = {name: values[name] for name in self.switches if name in values}
        for slider in self.sliders:
            if _key(slider) not in values:
                continue
            (name, i), value = slider.place, values[_key(slider)]
            number = int(value) if slider.scale == "whole" else float(value)
            if i is None:
                options[name] = number
            else:
                items = list(options.get(name, self._group[name]))
                items[i] = number
                options[name] = type(self._group[name])(items)
        return options

    def _group_of(self, options: Mapping[str, Any]) -> Any:
        """The parameter group that a constructor makes; or what it says against that."""
        try:
            made = self.cls([Parameter(torch.zeros((), dtype=torch.float64))], **options)
        except (TypeError, ValueError, RuntimeError) as error:
            return str(error)
        return made.param_groups[0]

    def _fitted(self, slider: Slider) -> Slider:
        """A slider that ends where the constructor begins to refuse."""
        for end in ("low", "high"):
            good, bad = slider.value, getattr(slider, end)
            if not isinstance(self._group_of(self._options({_key(slider): bad})), str):
                continue
            for _ in range(40):
                middle = (good + bad) / 2
                refused = isinstance(self._group_of(self._options({_key(slider): middle})), str)
                good, bad = (good, middle) if refused else (middle, bad)
            slider = replace(slider, low=good) if end == "low" else replace(slider, high=good)
        return slider

    @torch.no_grad()
    def _start(self, state: str) -> float | str:
        """What a state is at first: a number, or "p", the parameter's value."""
        starts = []
        for value in (2.0, -3.0):
            param = Parameter(torch.tensor(value, dtype=torch.float64))
            made = self.cls([param])
            for changes in ({}, *({name: v} for name, v in self._options(self._extremes()).items())):
                group = {**made.param_groups[0], **changes}
                starts.append(float(made.initial_state(state, param, group)))
        half = len(starts) // 2
        if set(starts[:half]) == {2.0} and set(starts[half:]) == {-3.0}:
            return "p"
        if len(set(starts)) != 1:
            raise PlaygroundError(
                f"{self.name}.initial_state makes {state!r} of more than the parameter's value: "
                "the playground has no JavaScript for that"
            )
        return starts[0]

    def _extremes(self) -> dict[str, Any]:
        return {_key(slider): slider.high for slider in self.sliders} | {
            n: not v for n, v in self.switches.items()
        }


def _pattern_key(values: Mapping[str, Any]) -> str:
    """Which numbers are 0 and which switches are on: by that constructors refuse what excludes itself."""
    return json.dumps([bool(value) for value in values.values()], separators=(",", ":"))


def _reaches_zero(slider: Slider) -> bool:
    return slider.low <= 0 <= slider.high or slider.scale == "log or 0"


def _key(slider: Slider) -> str:
    return str(json.loads(key(slider.place)))


def _unmarked(text: str) -> str:
    """A docstring's line without Sphinx' marks."""
    return re.sub(
        r":\w+:`~?([^`]*)`|``([^`]*)``|:math:`([^`]*)`",
        lambda found: next(filter(None, found.groups())),
        text,
    )


def _source(function: Callable[..., Any]) -> str:
    try:
        return textwrap.dedent(inspect.getsource(function))
    except OSError:  # written at a prompt
        return f"{function.__name__}: no source text"
