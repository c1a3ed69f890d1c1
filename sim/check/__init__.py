"""The independent checker: compares tables and as-of reads with what the simulator says is true.

It shares no code with the pipeline: its own SQL, its own reading of the simulator's log and truth.

``probe`` records as-of reads while the system runs; ``verify`` compares everything at the end:
``truth`` (what the market was), ``served`` (what sources answered), ``stored`` (what the database holds),
``bars`` and ``reads`` (the comparisons), ``report`` (the counts).
"""
