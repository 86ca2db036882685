"""Durable state: the spool of received files and the databases beside it."""
