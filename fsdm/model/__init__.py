"""The vocabulary: documents, ids, names on disk, errors, events, limits; clock, disk and network are left to others."""
