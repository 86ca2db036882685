"""DICOM associations: storage SCP and SCU, storage commitment, query, TLS."""
