"""Long runs against a real process: a loop of kills, a soak, and a cache of a million blobs (`python -m endurance`)."""
