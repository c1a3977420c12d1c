"""The command line, which may use everything; nothing imports it."""
