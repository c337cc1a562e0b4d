"""x"""
def clean(*, a: int = 3) -> None:
    """Clean it.

    Parameters
    ----------
    a
        The number.
    """
    print(a)
