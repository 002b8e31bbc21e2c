"""Records of which one is enough: found over the whole corpus, by what they hold."""
