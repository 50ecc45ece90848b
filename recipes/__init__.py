"""Scripts to read from top to bottom, and to run from a checkout: `python recipes/train.py --help`.

A script that is run by its path runs this file before it imports what takes time.
"""

import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

HERE = Path(__file__).resolve().parent


def leave(number: int, frame: object) -> NoReturn:
    """End at Ctrl-C: an exception would be a traceback, or be swallowed by one of torch's imports."""
    try:
        if os.environ.get("RANK", "0") == "0":  # one of torchrun's processes is enough
            print(f"{Path(sys.argv[0]).name}: interrupted", file=sys.__stderr__, flush=True)
    finally:
        os._exit(128 + number)


if __name__ != "recipes":  # Python looks for modules beside the script, and the package lies one higher
    sys.path.insert(0, str(HERE.parent))
program = getattr(sys.modules["__main__"], "__file__", None) or "/"  # `python -m` does not know it yet
is_ours = HERE in Path(program).resolve().parents or (
    sys.argv[0] == "-m" and any(word.startswith("recipes.") for word in sys.orig_argv)
)
if is_ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # neither theirs nor ignored
    signal.signal(signal.SIGINT, leave)
