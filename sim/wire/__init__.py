"""Providers' wire protocols, one module or family each; ``registry`` lists them."""
