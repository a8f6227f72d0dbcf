"""A run: its configuration and id, its folder and what stands there, and who works on it.

No training and no scheduler: who starts runs, and how they train, is said in packages to the left of this one.
"""
