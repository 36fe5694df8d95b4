"""Decisions as pure functions and small state machines: what is stored, what is asked and the time are arguments."""
