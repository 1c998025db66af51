"""A deterministic synthetic world told in Chinese, so that every experiment runs with no download. Strings only: no files."""
