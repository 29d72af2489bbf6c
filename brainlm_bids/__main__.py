"""`python -m brainlm_bids`: the same as `brainlm-bids`."""

import sys

from brainlm_bids.commands.bids_app import main

if __name__ == "__main__":
    sys.exit(main())
