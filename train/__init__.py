"""Makes detectors from normal sound alone; installs as ``edge_asd_train``."""

import edge_asd  # noqa: F401  # sees to it that ONNX Runtime sends nothing
