"""The ways in which things go wrong: a wrong setting, one bad input, or work that another does by now."""


class SettingError(Exception):
    """A wrong setting or machine: refused before any work, one line, exit status 2."""


class BadInputError(Exception):
    """One input cannot be used: it is quarantined with this reason, and the others go on."""


class SupersededError(Exception):
    """A later attempt at the same result has begun; this one ends without a trace, and that is no failure."""
