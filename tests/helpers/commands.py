"""Commands of ours as programs in which torch cannot be imported, as planning and reading need."""

import sys

PROGRAM = """
import sys
sys.modules["torch"] = None
from tests.helpers import compositions
compositions.share()
{before}
from soaes.{module} import main
sys.argv[0] = {module!r}
main()
"""


def without_torch(module, *words, before=""):
    """Return the command line of `python -m soaes.MODULE WORDS`, without torch.

    Args:
        module: The module that has `main`, as "run" or "doctor.__main__".
        words: Its arguments.
        before: Statements to run before the module is imported.
    """
    return [sys.executable, "-c", PROGRAM.format(module=module, before=before), *words]
