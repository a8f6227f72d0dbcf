"""What every other part may use and that knows nothing of networks: errors, files, YAML, machines, processes, formats.

Nothing here imports torch when it is imported, and nothing of it is about a ladder, a run or a study.
"""
