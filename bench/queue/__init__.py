"""The queue bench: what it costs to get a symbol from a push to its answer, beside stock queues."""
