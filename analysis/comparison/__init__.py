"""Studies held against each other: each step's effects in both, their difference, and how far the answers agree.

A study is runs, a record, a file of results, or the paper's own table. No statistics of its own (`stats`), no figure,
no file.
"""
