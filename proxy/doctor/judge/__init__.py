"""What the facts mean, and what to do about them: pure functions, one file a subject."""
