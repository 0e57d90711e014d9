"""A small, fixed evaluation on the repository's sample, and the figures that it must not fall below."""
