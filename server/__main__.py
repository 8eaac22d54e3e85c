"""``python -m server`` is ``rootserve-server``."""

import sys

from server.main import main

sys.exit(main())
