"""The one error that the companions raise towards whoever starts them."""


class CompanionError(Exception):
    """A start that cannot succeed; the text is one sentence that names the setting and what to do."""
