"""The vocabulary: documents, ids, names on disk, errors, events and limits; it does no I/O."""
