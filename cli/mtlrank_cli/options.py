"""How options are written that several commands have."""


def split_names(text: str | None) -> list[str]:
    """Names between commas, without the spaces around them; none for no text."""
    return [name.strip() for name in text.split(",") if name.strip()] if text else []
