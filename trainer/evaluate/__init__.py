"""What a trained model can do, measured on the shards of a corpus."""
