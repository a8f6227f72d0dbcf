"""Training one run: the loop, one step, evaluation, checkpoints, several processes, loggers.

Which runs there are, and who starts them, is not known here.
"""
