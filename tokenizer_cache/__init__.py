"""Images and texts as tokens: tokenizers and their training, the vocabulary, the shards."""
