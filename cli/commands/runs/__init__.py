"""Commands that make runs, follow them and look into them."""
