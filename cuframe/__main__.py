import sys

from cuframe.cli import main

sys.exit(main())
