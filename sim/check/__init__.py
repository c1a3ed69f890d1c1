"""The checker: compares what is stored and what as-of reads answer with the market's truth."""
