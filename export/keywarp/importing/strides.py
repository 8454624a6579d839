"""The stride of a map."""


def whole_stride(rows: int, columns: int, height: int, width: int) -> int | None:
    """Return the stride of a map if it has one in whole pixels: rows = ceil(height / stride), columns likewise."""
    if not 0 < rows <= height:
        return None
    for stride in {height // rows, -(-height // rows), round(height / rows)}:
        if (-(-height // stride), -(-width // stride)) == (rows, columns):
            return stride
    return None
