"""The command line: parses, asks a `Service`, renders. It decides nothing, and only it exits."""
