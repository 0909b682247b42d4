"""The page of a trial: figures, tables and sentences made from its numbers."""
