"""Findings and source headers in, DICOM datasets out. No network, no disk, no torch."""
