"""Makes detectors from normal sound alone; installs as ``edge_asd_train``."""
