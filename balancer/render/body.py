"""A health check's expected JSON member as a regular expression over the body, for engines that parse none."""


def json_pattern(key: str, value: object) -> str:
    """Return the regex that finds `"key": value`, with any spaces around the colon."""
    text = f'"{value}"' if isinstance(value, str) else str(value).lower()
    return f'"{_literal(key)}" *: *{_literal(text)}'


def _literal(text: str) -> str:
    return "".join(
        character
        if character.isalnum() or character in '_-" '
        else f"\\{character}"
        if character in "^\\[]"
        else f"[{character}]"
        for character in text
    )
