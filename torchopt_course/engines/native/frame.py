"""The arrays of 64-bit words through which Python and compiled code talk, by the names of their words.

A *frame* is one numpy array. Its words are numbers, addresses of other arrays and addresses of Python objects
(``id``). Python fills it when something is planned; a step changes a few words and reads the verdict.
"""

from __future__ import annotations

from itertools import count

# What a look at the tensors, or the preparation of a step, can find.
HOLDS, CHANGED, OPTIONS, GRADIENT_LAYOUT, COEFFICIENTS, THREADS_CHANGED, MEMORY_MOVED = range(7)

# Words of the array of C functions and objects, see :mod:`.api`.
_word = count().__next__
EXCHANGE, LIST_ITEM, LIST_SIZE, LIST_APPEND, LIST_SET_SLICE, DICT_ITEM, DICT_NEXT = (
    _word() for _ in range(7)
)
TUPLE_ITEM, TUPLE_SIZE, AS_DOUBLE, DECREF, CALL, SAVE_THREAD, RESTORE_THREAD = (_word() for _ in range(7))
GET_GRAD, GRAD_CLOSURE, IS_NEG, IS_INFERENCE, INCREMENT_VERSION = (_word() for _ in range(5))
PARALLEL_FOR, NUM_THREADS = (_word() for _ in range(2))
NONE, TRUE, A_TENSOR, A_PARAMETER, A_LIST, A_DICT, A_TUPLE = (_word() for _ in range(7))
API_WORDS = _word()

# The first word of a frame that compiled code is called with. (Not one for all: while a kernel runs, another
# thread of Python may step another optimizer.)
VERDICT = 0

# Words of a bucket's frame: what is asked of its tensors ...
_word = count(VERDICT + 1).__next__
SAME_AGE, PRESENT, COUNT, STATES, COLUMNS, AGE_BITS = (_word() for _ in range(6))
EXPECTED, NAMES, TABLE, AGES, ABSENT, SCRATCH = (_word() for _ in range(6))
WRITTEN, READ, GONE, TARGETS_MOVED, GRADS_MOVED, STRIDES_COUNT = (_word() for _ in range(6))
# ... and how they are updated.
KERNEL, WORK, ROWS, SHARED_WORK, SHARED_STARTS, PARTS, ELEMENTS = (_word() for _ in range(7))
NUMBERS, SETS, WIDTH, COUNTS_STEPS, ASKS_FIRST = (_word() for _ in range(5))
PROGRAM, OPERATIONS, CONDITIONS, FIRST_RESULT, REGISTERS, RESULTS, STEP_REGISTER = (_word() for _ in range(7))
REGISTER_INPUTS, REGISTER_INPUT_COUNT = (_word() for _ in range(2))
BOUNDS, BOUND_COUNT, TARGETS_OVERLAP, GRADS_APART = (_word() for _ in range(4))
USED_WORK, USED_STARTS, SELF, THREADS = (_word() for _ in range(4))
SWEEPS, SWEEP, PARTIALS, BLOCKS = (_word() for _ in range(4))
BUCKET_WORDS = _word()

# Words of one row of `expected`; the ids of the state tensors follow, then that of the step, then the
# addresses of their layouts.
POSITION, PARAM, KIND, PLACE, LAYOUT, GRAD_LAYOUT, FIRST_STATE = range(7)
# DLPack's DLTensor as 64-bit words: data, device, ndim and dtype, shape, strides, byte offset.
DATA, DEVICE, RANK_AND_DTYPE, SHAPE, STRIDES, OFFSET = range(6)
VIEW_WORDS = 6

# Words of a group's frame.
_word = count().__next__
GROUP_BUCKETS, BUCKET_COUNT, PARAM_COUNT, PARAMS_NAME = (_word() for _ in range(4))
FIXED, FIXED_COUNT, INPUTS, INPUT_COUNT, VALUES, UNKNOWN, UNKNOWN_COUNT = (_word() for _ in range(7))
GROUP_WORDS = _word()

# Words of the frame of all groups of an optimizer.
GROUP_COUNT, GROUPS = VERDICT + 1, VERDICT + 2
ALL_WORDS = VERDICT + 3

# Words of one row of a group's `inputs`: an option, or an item of a tuple (else -1) of so many.
NAME, INDEX, LENGTH, TYPE, IS_WHOLE, TRUTH = range(6)
INPUT_WORDS = 6
# Whether a number must be what it was to `if`.
ANY, NOT_ZERO, ZERO = range(3)

# Up to here every whole number is a number of double precision.
MOST_EXACT = 2.0**53

# Operations on coefficients; the first six compare.
LT, LE, GT, GE, EQ, NE, ADD, SUB, MUL, DIV, POW, NEG, ABS, SQRT, EXP, LOG, SIN, COS = range(18)
OPCODES = {
    "lt": LT, "le": LE, "gt": GT, "ge": GE, "eq": EQ, "ne": NE,
    "add": ADD, "sub": SUB, "mul": MUL, "div": DIV, "pow": POW, "neg": NEG, "abs": ABS,
    "sqrt": SQRT, "exp": EXP, "log": LOG, "sin": SIN, "cos": COS,
}  # fmt: skip
