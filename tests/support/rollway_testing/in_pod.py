"""Run the operator as in a pod, with its service account's files in another folder: `python -m rollway_testing.in_pod`.

The client library has their places as constants; a test that may not write to /var must move them.
"""

import os
import sys
from pathlib import Path

from kubernetes.aio.config import incluster_config

from rollway_operator.__main__ import main

FOLDER = "ROLLWAY_TEST_SERVICE_ACCOUNT"

if __name__ == "__main__":
    files = Path(os.environ[FOLDER])
    incluster_config.SERVICE_TOKEN_FILENAME = str(files / "token")
    incluster_config.SERVICE_CERT_FILENAME = str(files / "ca.crt")
    sys.exit(main())
