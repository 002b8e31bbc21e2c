"""The image tokenizer: an encoder and a decoder around a vector-quantised codebook."""

from tokenizer_cache.vq.tokenizer import VQTokenizer as VQTokenizer
from tokenizer_cache.vq.tokenizer import describe_vq as describe_vq
from tokenizer_cache.vq.tokenizer import load_vq as load_vq
