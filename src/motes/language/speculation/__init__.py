"""Schemes that verify cheap drafts of tokens and leave the law of the model as it is; one file a scheme."""
