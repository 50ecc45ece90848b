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
WORK, ROWS, SHARED_WORK, SHARED_STARTS, PARTS, ELEMENTS = (_word() for _ in range(6))
NUMBERS, SETS, COUNTS_STEPS, ASKS_FIRST = (_word() for _ in range(4))
PROGRAM, OPERATIONS, OF_OPTIONS, CONDITIONS, FIRST_RESULT, REGISTERS, STEP_REGISTER = (
    _word() for _ in range(7)
)
REGISTER_INPUTS, REGISTER_INPUT_COUNT = (_word() for _ in range(2))
BOUNDS, BOUND_COUNT, TARGETS_OVERLAP, GRADS_APART = (_word() for _ in range(4))
USED_WORK, USED_STARTS, SELF, THREADS = (_word() for _ in range(4))
SWEEP, BLOCKS, STAGES, FOUND = (_word() for _ in range(4))
# What is done at present, a *stage*: a search, the update, or what gives options their new values.
KERNEL, SWEEPS, PARTIALS, WIDTH, RESULTS, REDUCTIONS, PLACES = (_word() for _ in range(7))
BUCKET_WORDS = _word()
STAGE_WORDS = BUCKET_WORDS - KERNEL

# Words of one row of `expected`; the ids of the state tensors follow, then that of the step, then the
# addresses of their layouts.
POSITION, PARAM, KIND, PLACE, LAYOUT, GRAD_LAYOUT, FIRST_STATE = range(7)
# DLPack's DLTensor as 64-bit words: data, device, ndim and dtype, shape, strides, byte offset.
DATA, DEVICE, RANK_AND_DTYPE, SHAPE, STRIDES, OFFSET = range(6)
VIEW_WORDS = 6

# Words of a group's frame; its buckets follow one another among those of all groups.
_word = count().__next__
BUCKETS_FROM, BUCKETS_TO, PARAM_COUNT, PARAMS_NAME = (_word() for _ in range(4))
FIXED, FIXED_COUNT, INPUTS, INPUT_COUNT, VALUES, UNKNOWN, UNKNOWN_COUNT = (_word() for _ in range(7))
RENEWED = _word()
GROUP_WORDS = _word()

# Words of the frame of all groups of an optimizer.
_word = count(VERDICT + 1).__next__
GROUP_COUNT, GROUPS, BUCKET_COUNT, BUCKETS = (_word() for _ in range(4))
SEARCHES, WANTED, WANTED_COUNT, RENEWS = (_word() for _ in range(4))
ALL_WORDS = _word()

# Words of one row of its `wanted`: a number over several tensors, by the search that finds it, its place
# among those of that search and among all.
SEARCH, PART, NUMBER, WORD, OVER_ALL = range(5)
WANTED_WORDS = 5
# How it is made.
SUM_OF, MEAN_OF, LENGTH_OF, LARGEST, SMALLEST, ANY_OF, ALL_OF = range(7)
WANTED_CODES = {
    "sum": SUM_OF, "count_nonzero": SUM_OF, "mean": MEAN_OF, "norm": LENGTH_OF,
    "amax": LARGEST, "amin": SMALLEST, "any": ANY_OF, "all": ALL_OF,
}  # fmt: skip

# Words of one row of a group's `inputs`: an option, or an item of a tuple (else -1) of so many.
NAME, INDEX, LENGTH, TYPE, IS_WHOLE, TRUTH = range(6)
INPUT_WORDS = 6
# Whether a number must be what it was to `if`.
ANY, NOT_ZERO, ZERO = range(3)

# Up to here every whole number is a number of double precision.
MOST_EXACT = 2.0**53

# Operations on numbers: rows of a code and the registers of at most three operands. Codes up to `NE` compare.
ROW_WORDS = 4
LT, LE, GT, GE, EQ, NE, ADD, SUB, MUL, DIV, POW, NEG, ABS, SQRT, EXP, LOG, SIN, COS = range(18)
FLOOR, CEIL, TRUNC, FMOD, MOD, FLOORDIV = range(18, 24)
RECIPROCAL, SIGN, MAXIMUM, MINIMUM, WHERE, AND, OR, XOR, NOT = range(24, 33)
COMPARISONS = {"lt": LT, "le": LE, "gt": GT, "ge": GE, "eq": EQ, "ne": NE}
# Of coefficients: as Python and its `math` compute them.
OPCODES = COMPARISONS | {
    "add": ADD, "sub": SUB, "mul": MUL, "div": DIV, "pow": POW, "neg": NEG, "abs": ABS,
    "sqrt": SQRT, "exp": EXP, "log": LOG, "sin": SIN, "cos": COS,
    "floor": FLOOR, "ceil": CEIL, "trunc": TRUNC, "fmod": FMOD,
    "mod": MOD, "floordiv": FLOORDIV,
}  # fmt: skip
# Of numbers over several tensors: as numpy computes them. (Its exponentials and the like are its own.)
OPCODES_OF_SEVERAL = COMPARISONS | {
    "add": ADD, "sub": SUB, "mul": MUL, "div": DIV, "pow": POW, "neg": NEG, "abs": ABS,
    "sqrt": SQRT, "reciprocal": RECIPROCAL, "floor": FLOOR, "ceil": CEIL, "sign": SIGN,
    "maximum": MAXIMUM, "minimum": MINIMUM, "where": WHERE,
    "logical_and": AND, "logical_or": OR, "logical_xor": XOR, "logical_not": NOT,
}  # fmt: skip
