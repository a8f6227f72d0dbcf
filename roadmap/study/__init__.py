"""A study: a ladder under a recipe on a data set with its seeds, as the runs that it needs, all checked beforehand.

Also where runs find the weights that they start from. Nothing here starts anything.
"""
