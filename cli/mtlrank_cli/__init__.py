"""The `mtlrank` command: parses and prints; what it does lives in mtl_rank."""
