"""Where specifications come from: files that are watched, and told of once and whole. Reads them, and writes nothing."""
