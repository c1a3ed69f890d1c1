"""Cyclic garbage of a process that lives for weeks."""

import gc


def settle() -> None:
    """Leave what exists now out of every later collection; call it once, when all is built.

    The interpreter looks at its oldest objects only when they have grown by a quarter
    (``long_lived_pending`` in gcmodule.c). The modules that a worker imports are 100,000 objects, so
    without this an hour's cycles stay in memory, and each look at them takes a tenth of a second.
    """
    gc.collect()
    gc.freeze()
    # Learns how few are left: from here on, a quarter is a quarter of what came since.
    gc.collect()
