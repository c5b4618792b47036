"""Who is in a cohort: downloads, webhook messages, and the members that Marketing Cloud acknowledged."""
