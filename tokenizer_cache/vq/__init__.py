"""The image tokenizer: an encoder and a decoder around a vector-quantised codebook."""
