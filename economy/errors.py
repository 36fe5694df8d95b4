"""What ends a run."""


class EconomyError(Exception):
    """The day could not be replayed; the message is for people."""
