"""The LLM that writes what the corpus lacks: captions, styles and negatives."""
