"""What a corpus shows to people: its dataset card, and a page with everything that happened."""
