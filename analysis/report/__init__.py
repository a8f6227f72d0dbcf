"""Reports: the files of a study, its tables, its page, its record.

What they say is found in `analysis.study_results`.
"""
