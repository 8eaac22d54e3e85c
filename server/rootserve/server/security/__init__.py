"""Who may connect and who may call what: TLS, tokens, groups of methods. Decides; the wire refuses."""


class SecurityError(ValueError):
    """A file that protects the service cannot be used: the option, the file, what was expected.

    Never holds anything that stands in such a file.
    """
