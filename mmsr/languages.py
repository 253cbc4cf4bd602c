"""Names, codes and words of languages."""
