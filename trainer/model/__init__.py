"""The decoder and the cache that it samples with."""
