"""What can go wrong in a benchmark."""


class BenchError(Exception):
    """A measurement failed, or none is possible; the message says why in one line."""


class MissingProgram(BenchError):
    """A program the benchmark needs is not installed."""
