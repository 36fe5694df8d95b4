"""The nouns of the OCI distribution specification: no I/O, no clock."""
