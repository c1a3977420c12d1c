"""The vendored package's own test runs where the file has been written into a copy of it."""

collect_ignore = ["vendored"]
