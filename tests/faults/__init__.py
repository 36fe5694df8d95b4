"""One fault after another: what the client saw, what is on disk, what the metrics say, and the pull after it.

`docs/faults.md` is what these tests saw, and they compare themselves with it. To write it anew:

    PULLTHROUGH_WRITE_FAULTS=1 python -m pytest tests/faults
"""
