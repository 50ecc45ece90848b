"""The lines of the engines that ``python -m tests.mutations`` breaks, and the tests that are to notice."""

from __future__ import annotations

from typing import NamedTuple

PACKAGE = "torchopt_course"


class Mutation(NamedTuple):
    """A line that is broken.

    Attributes:
        name: what is wrong then.
        file: of the package.
        old, new: the text, which stands there once, and what is put into its place.
        tests: a file of tests and, after that, words to select some of them, as pytest's ``-k`` takes them.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, str]


STEP, IN_PLACE = "engines/test_all_or_nothing.py", "engines/test_in_place.py"
PLAN, GRADIENTS, MEMORY = (f"engines/test_plan{of}.py" for of in ("", "_gradients", "_memory"))
PREPARED, CUDA, STORAGE = "engines/test_prepared.py", "engines/test_cuda.py", "optimizers/test_storage.py"

MUTATIONS = [
    Mutation(
        "states that were made for a step that failed stay",
        "engines/step.py",
        "            del optimizer.state[param][name]\n",
        "            pass\n",
        (STEP, "own_formula"),
    ),
    Mutation(
        "gradients are not scaled again after a failure",
        "engines/step.py",
        "            self._multiply_gradients(optimizer, scaling.grad_scale.item())\n",
        "            pass\n",
        (STEP, "scaled_again"),
    ),
    Mutation(
        "memory that is shared is not noticed",
        "engines/repeats.py",
        "if sets and each[0] < end:",
        "if sets and each[0] < 0:",
        ("engines/test_repeats.py", "views"),
    ),
    Mutation(
        "a plan is kept although the options have changed",
        "engines/group.py",
        "if self._planned != self.options or len",
        "if len",
        (PLAN, "option"),
    ),
    Mutation(
        "the guards take a state of another shape",
        "engines/native/guards.py",
        "strange |= shape[d] != sizes[d]",
        "strange |= False",
        ("engines/test_guards.py", "definition"),
    ),
    Mutation(
        "the guards take another tensor for a state",
        "engines/native/guards.py",
        "                    if tensor != row[f.FIRST_STATE + s]:\n",
        "                    if tensor == 0:\n",
        ("engines/test_guards.py", "definition"),
    ),
    Mutation(
        "a state that is gone is not noticed",
        "engines/native/guards.py",
        "if call1(api[f.LIST_SIZE], bucket[f.GONE]) != 0:",
        "if False:",
        ("engines/test_owns_nothing.py", "away or same_id"),
    ),
    Mutation(
        "the prepared step does not notice another rule",
        "engines/prepared.py",
        "cls.rule is not self._rule or ",
        "",
        (PREPARED, "another_rule"),
    ),
    Mutation(
        "the prepared step does not ask which terms there are",
        "engines/native/step.py",
        "if (row[f.TRUTH] == f.NOT_ZERO and number == 0) or (row[f.TRUTH] == f.ZERO and number != 0):",
        "if False:",
        (PREPARED, "option_keeps"),
    ),
    Mutation(
        "the prepared step does not tell autograd what it writes",
        "engines/native/step.py",
        "            if announce(api, words(buckets[k])) != f.HOLDS:\n",
        "            if False:\n",
        (MEMORY, "reported"),
    ),
    Mutation(
        "the prepared step forgets a parameter that gets its first gradient",
        "engines/native/step.py",
        "            if grad != api[f.NONE]:\n                return False\n",
        "",
        (GRADIENTS, "late"),
    ),
    Mutation(
        "elements do not hasten the compilation of the step",
        "engines/native/step.py",
        "_Compiled.patience -= STEP + tensors * TENSOR + elements",
        "_Compiled.patience -= STEP + tensors * TENSOR",
        ("engines/test_compiler.py", "begins"),
    ),
    Mutation(
        "a choice of the coefficients is not asked again",
        "engines/native/numbers.py",
        "if compare(row[0], registers[row[1]], registers[row[2]]) != (row[3] != 0):",
        "if False:",
        (PREPARED, "choice"),
    ),
    Mutation(
        "coefficients are those of the step before",
        "engines/native/numbers.py",
        "registers[bucket[f.STEP_REGISTER]] = age + 1",
        "registers[bucket[f.STEP_REGISTER]] = age",
        (PREPARED, "equal_torchs"),
    ),
    Mutation(
        "all parameters get the coefficients of the first",
        "engines/native/numbers.py",
        "                    sets[i] = n\n                    n += 1\n",
        "                    sets[i] = 0\n                    n += 1\n",
        (PREPARED, "equal_torchs"),
    ),
    Mutation(
        "autograd is not told what a kernel writes",
        "engines/native/update.py",
        "done = call2(api[f.CALL], api[f.INCREMENT_VERSION], bucket[f.WRITTEN])",
        "done = call2(api[f.CALL], api[f.A_TUPLE], bucket[f.WRITTEN])",
        (MEMORY, "reported"),
    ),
    Mutation(
        "threads run although memory is shared",
        "engines/native/update.py",
        "if bucket[f.TARGETS_OVERLAP] or not bucket[f.GRADS_APART]:",
        "if False:",
        (MEMORY, "share"),
    ),
    Mutation(
        "a thread's part of a tensor is left out",
        "engines/cpu/bucket.py",
        "parts[t].append((i, start, stop - start))",
        "parts[t].append((i, start, stop - start - t))",
        ("engines/test_threads.py", "same_bits"),
    ),
    Mutation(
        "the step count goes up once for each thread",
        "engines/cpu/kernel.py",
        '            "        if offset == 0:",\n            f"            step = steps',
        '            "        if True:",\n            f"            step = steps',
        ("engines/test_threads.py", "same_bits"),
    ),
    Mutation(
        "a kernel reads another state than it writes",
        "engines/cpu/kernel.py",
        'f"        row, own = item * {width}, ',
        'f"        row, own = 0 * {width}, ',
        (PREPARED, "equal_torchs"),
    ),
    Mutation(
        "what rounding loses is computed from the wrong number",
        "engines/cpu/storage.py",
        'f"lost_{name} = {number} - {self.read(f',
        'f"lost_{name} = {number} + {self.read(f',
        (STORAGE, "same_numbers"),
    ),
    Mutation(
        "bfloat16 is cut instead of rounded",
        "engines/native/intrinsics.py",
        "builder.add(_WORD(0x7FFF), odd)",
        "_WORD(0)",
        ("optimizers/test_half.py", "rounded_once"),
    ),
    Mutation(
        "chance is the same in each step",
        "engines/storage.py",
        "for number in (self.group, self.step, self.seed):",
        "for number in (self.group, self.seed):",
        ("optimizers/test_rounding.py", "another_in_each_step"),
    ),
    Mutation(
        "a block's last lanes are left out of a sum",
        "engines/cpu/reductions.py",
        '"    for lane in range(stop - whole_rows):"',
        '"    for lane in range((stop - whole_rows) // 2):"',
        ("engines/test_reductions.py", "each_reduction"),
    ),
    Mutation(
        "the GPU's kernel leaves the rest of a tensor out",
        "engines/cuda/kernel.py",
        '"    if whole < n:"',
        '"    if whole > n:"',
        (CUDA, "equals_torch and SGD"),
    ),
    Mutation(
        "the GPU's kernel updates although a gradient has overflowed",
        "engines/cuda/kernel.py",
        '"    alive = tl.where(tl.load(found_inf) == 0, 1, 0)"',
        '"    alive = tl.where(tl.load(found_inf) == 0, 1, 1)"',
        (CUDA, "unscales"),
    ),
    Mutation(
        "the GPU's kernel gets old addresses",
        "engines/cuda/tables.py",
        "        key = self._addresses.tobytes()\n",
        '        key = b""\n',
        (CUDA, "late"),
    ),
    Mutation(
        "a portion of a list is left out",
        "engines/operations/foreach.py",
        "                portion, filled = [[] for _ in columns], 0\n            for",
        "                portion, filled = [[] for _ in columns], 0\n                break\n            for",
        ("engines/test_foreach.py", "portions"),
    ),
    Mutation(
        "the gradient is written to",
        "engines/operations/in_place.py",
        'and each in line.dying and each != "g":',
        "and each in line.dying:",
        ("engines/test_foreach.py", "overwrites"),
    ),
    Mutation(
        "a result is overwritten before it is moved",
        "engines/operations/in_place.py",
        "        if source in moved:\n            yield",
        "        if False:\n            yield",
        (IN_PLACE, "change_places"),
    ),
    Mutation(
        "what is subtracted in one operation is added",
        "engines/operations/joined.py",
        'sign = (-1,) if line.word == "sub" else ()',
        "sign = ()",
        (IN_PLACE, "several_parameters"),
    ),
    Mutation(
        "torch's operations meet memory that is shared",
        "engines/guards.py",
        "        if not self._targets.isdisjoint(table[:, 1].tolist()):\n",
        "        if False:\n",
        (IN_PLACE, "memory_that_is_shared"),
    ),
    Mutation(
        "torch's operations go on for parameters of another age",
        "engines/operations/bucket.py",
        "        if not self.guards.same_age:\n            return None\n",
        "",
        (PREPARED, "follow"),
    ),
    Mutation(
        "a number that torch refuses is found in the midst of a step",
        "engines/operations/in_place.py",
        "            if not -most <= number <= most and is_bounded and isfinite(number):\n",
        "            if False:\n",
        (IN_PLACE, "beyond"),
    ),
    Mutation(
        "strides that matter are not compared",
        "engines/layout.py",
        "all(size == 1 or s == t for",
        "all(size >= 1 or s == t for",
        (PLAN, "layout"),
    ),
]
