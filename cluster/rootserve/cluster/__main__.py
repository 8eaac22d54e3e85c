"""`python -m rootserve.cluster`: the command line without its script."""

import sys

from rootserve.cluster.cli import main

sys.exit(main())
