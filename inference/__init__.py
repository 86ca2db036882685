"""Models and the arrays they read. Knows no DICOM network, no database; importing the package never imports torch."""
