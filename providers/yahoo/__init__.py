"""Yahoo on the wire: shared session, requests that are never repeated, chart and quote replies."""
