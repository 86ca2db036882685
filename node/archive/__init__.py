"""Report archives: sources, relabelling, and the link from a report to its study."""
