"""``python -m rootserve.server`` is ``rootserve-server``."""

import sys

from rootserve.server.main import main

sys.exit(main())
