"""The vocabulary: documents, ids, names on disk, errors, events and limits; without clock, disk, network or thread."""
