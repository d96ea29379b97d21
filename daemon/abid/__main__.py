"""``python -m abid``."""

import sys

from abid.main import main

sys.exit(main())
