"""The control API of the sandbox, `/_sandbox/...`: cohorts and data extensions, faults, what was requested."""
