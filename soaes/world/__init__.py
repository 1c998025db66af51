"""A deterministic synthetic world told in Chinese, so that all runs with no download. Strings only: no files."""
