"""``python -m server`` in a checkout is ``rootserve-server``."""

import sys

from rootserve.server.main import main

sys.exit(main())
