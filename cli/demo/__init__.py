"""`cohort-sync demo`: the main job against the sandbox, checked by a comparison of its own."""
