"""What users import: contracts, client, command line."""

import os

__version__ = "0.1.0"

# onnxruntime sends usage events to its maker unless told not to before it is first imported;
# processes that we start inherit this. We send nothing anywhere. Whoever wants it sets it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
