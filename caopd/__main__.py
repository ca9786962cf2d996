"""``python -m caopd`` is the ``caopd`` command."""

import sys

from caopd.cli import main

sys.exit(main())
