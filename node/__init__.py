"""Everything of falx that touches a network, a disk or a database."""

__version__ = "0.1.0"
