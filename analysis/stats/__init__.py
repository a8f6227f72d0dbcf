"""Statistics of a ladder: what the seeds say of each step, and how many more would say the rest.

Arrays in, arrays and frames out; nothing here imports torch, reads a file or knows what a network is.
"""
