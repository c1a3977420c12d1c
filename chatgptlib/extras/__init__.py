"""What is built on the core: each module imports the core, and at most others of these."""
