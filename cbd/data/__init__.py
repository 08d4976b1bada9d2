"""Text: documents, splits, packed ids, task items, prompts with responses, byte alignment."""
