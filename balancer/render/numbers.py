"""Numbers for engines that can only compare texts."""


def above(limit: int) -> str:
    """Return the regex of the decimal numbers that are larger than `limit`, leading zeros allowed."""
    digits = str(limit)
    parts = [f"[1-9][0-9]{{{len(digits)},}}"]
    for place, digit in enumerate(digits):
        if digit != "9":
            rest = len(digits) - place - 1
            parts.append(f"{digits[:place]}[{int(digit) + 1}-9]" + (f"[0-9]{{{rest}}}" if rest else ""))
    return f"^0*(?:{'|'.join(parts)})$"
