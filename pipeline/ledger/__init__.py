"""What a corpus can say about itself: its status, and whether anything is missing or wrong."""
