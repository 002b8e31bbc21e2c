"""From the shards to packed rows: sequences, their order, the mix, the loader."""
