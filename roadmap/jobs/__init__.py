"""Jobs: who trains which runs, in processes of this machine or of Slurm's, and where they stand.

How a run trains is not known here, only that it does.
"""
