"""Errors of the companions: one for whoever starts them, one for whoever asks their sample data."""


class CompanionError(Exception):
    """A start that cannot succeed; the text is one sentence that names the setting and what to do."""


class RecordNotFoundError(LookupError):
    """No record, or more than one, fits what was asked; the text is a sentence for the person who asked."""
