"""A market and its providers on localhost, with the truth and the faults."""
