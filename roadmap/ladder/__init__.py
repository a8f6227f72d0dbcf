"""Ladders: steps on networks and recipes, the schema of a ladder's file, rungs, designs, references, Table 1.

Nothing here trains or reads run folders, and nothing imports torch when it is imported.
"""
