"""The command line: the parser, a file for each family of commands, live progress.

Nothing that a Python program would want to call: each command is a screen over the rest of the package.
"""
