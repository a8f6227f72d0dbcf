"""What was found of trained networks after their runs: by attacks and corruptions, by functions of a user's own.

Each says what it found as an `analysis.metrics.Evaluated`; how a step is judged by it is not known here.
"""
