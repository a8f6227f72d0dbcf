"""From run folders to verdicts, figures and tables; nothing here imports torch."""
