"""How a connection to a database server is encrypted, from the modes that libpq has made the common tongue."""

import ssl

from .errors import Unsupported
from .server_address import Server


def context(server: Server) -> ssl.SSLContext | None:
    """
    What `sslmode` asks for: None for `disable`; no check of the certificate for `prefer` and `require`; its issuer for
    `verify-ca`; and the host's name too for `verify-full`. Raises `Unsupported` for a root that cannot be read.
    """
    if server.tls == "disable":
        return None
    made = ssl.create_default_context()
    if server.tls in {"prefer", "require"}:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
        return made
    made.check_hostname = server.tls == "verify-full"
    if server.tls_root:
        try:
            made.load_verify_locations(cafile=server.tls_root)
        except OSError as error:  # an SSLError is one too
            reason = error.strerror if not isinstance(error, ssl.SSLError) else "it holds no certificate"
            raise Unsupported(f"sslrootcert {server.tls_root} cannot be read: {reason}") from None
    return made
