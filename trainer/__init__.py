"""From shards to a trained any-to-any model: mix, packing, training, sampling, evaluation."""
