"""Marketing Cloud as the sandbox imitates it: tokens, data extensions, row jobs, REST and SOAP."""
