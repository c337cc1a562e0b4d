"""The two ways in which things go wrong: a setting is wrong, or one input is bad."""


class SettingError(Exception):
    """A wrong setting or machine: refused before any work, one line, exit status 2."""


class BadInputError(Exception):
    """One input cannot be used: it is quarantined with this reason, and the others go on."""
