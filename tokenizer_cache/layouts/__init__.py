"""Our sequences as the published models number them, and back; docs/vocabulary.md has the table."""
