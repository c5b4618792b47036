"""`python -m sandbox`: the sandbox without the product's command line."""

import sys

from sandbox.app import main

sys.exit(main(sys.argv[1:]))
