"""Looking without changing: preconditions, the data extension read back and compared, and where one contact is."""
