"""From a config to a run: building, launching, testing, exporting."""
