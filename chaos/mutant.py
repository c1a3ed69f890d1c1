"""``python -m chaos.mutant MUTATION MODULE WORDS...``: runs a process of ours with one safety switched off."""

import runpy
import sys

from chaos.mutations import MUTATIONS


def main() -> None:
    """Switch it off, then become the module."""
    _, mutation, module, *words = sys.argv
    MUTATIONS[mutation]()
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
