"""Tests, intervals and designs' effects: arrays in, arrays out.

No run folders, no ladders, no words for printing.
"""
