"""The data engine: sources, tables, stages, the Ray runner, selection, cards and reports."""
