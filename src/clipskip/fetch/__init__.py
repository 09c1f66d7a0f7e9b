"""A link, an AIR or a hash to the model's file, verified and in the folder of its kind."""

from clipskip.fetch.getting import Fetched, fetch

__all__ = ["Fetched", "fetch"]
