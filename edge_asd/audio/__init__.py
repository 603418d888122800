"""From a recording to windows: blocks of samples at one rate, cut by counting samples."""
