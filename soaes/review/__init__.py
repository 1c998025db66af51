"""A page on which people review questions with answers, labels and near-duplicates."""
