"""From a trained model to pictures and texts."""
