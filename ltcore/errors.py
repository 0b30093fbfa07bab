"""Errors that are the user's to mend: one clear line each, never a traceback."""


class UserError(Exception):
    """Something outside the program is wrong (a file, a disk, a machine); the message says what to do."""

    exit_code = 1


class DataMissingError(UserError):
    """A data set of which no file is there: what does not need it may run all the same."""


class PackageMissingError(DataMissingError):
    """A package is not installed without which a data set or an environment can't be had."""


class UsageError(UserError):
    """The call itself is wrong: a bad name, value or combination."""

    exit_code = 2
