"""Cyclic garbage of a process that lives for weeks."""

import gc


def settle() -> None:
    """Leave what exists now out of every later collection; call it once, when all is built.

    The interpreter looks at its oldest objects only when they have grown by a quarter
    (``long_lived_pending`` in gcmodule.c). The modules that a worker imports are some 75,000 objects, so
    without this cycles stay until 18,000 more objects have gathered, and each look takes 30 ms.
    """
    gc.collect()
    gc.freeze()
    # Learns how few are left: from here on, a quarter is a quarter of what came since.
    gc.collect()
