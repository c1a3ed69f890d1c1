"""The human's door: the ``ops`` command, the exporter and the embedded servers."""
