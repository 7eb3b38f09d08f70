"""The judge: takes a conversation, applies the rubric, returns written judgements and scores."""
