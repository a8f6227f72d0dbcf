"""What networks cost in time and memory, measured side by side on the machine at hand, and forecasts from that.

Nothing here trains a run of a study.
"""
