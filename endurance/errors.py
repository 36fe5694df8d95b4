"""What ends a run."""


class EnduranceError(Exception):
    """The run cannot go on, or what it found is a failure; the message is for people."""
