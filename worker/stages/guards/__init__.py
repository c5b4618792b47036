"""What speaks against a run: its changes, its file, a webhook's list."""
