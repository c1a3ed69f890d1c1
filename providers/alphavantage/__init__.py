"""Alpha Vantage: ``adapter`` plans and asks, ``pages`` reads what comes, ``refusals`` the words of a no."""
