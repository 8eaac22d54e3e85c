"""The configuration of Envoy as commented YAML, made of options; what it says is in envoy.yaml.template."""

from __future__ import annotations

import json
import textwrap
from importlib import resources
from pathlib import Path
from string import Template

from rootserve.client.address import Address
from rootserve.cluster.options import EnvoyOptions, ListenerTls, ServerTls, is_name

_MIN_RETRIES = 1024
_PING_TIMEOUT_S = 2.0


def configuration(options: EnvoyOptions, command: str) -> str:
    """The text of a configuration that says at its top that ``command`` wrote it."""
    template = resources.files("rootserve.cluster").joinpath("envoy.yaml.template").read_text()
    text = Template(template).substitute(
        command=" ".join(command.split()),
        admin=_socket(Address("127.0.0.1", options.admin_port)),
        listen=_socket(Address(options.host, options.port)),
        metrics=_socket(Address(options.host, options.metrics_port)),
        retry_bytes=options.max_retry_mb * 2**20,
        max_heap_bytes=options.max_heap_mb * 2**20,
        min_retries=_MIN_RETRIES,
        health_interval=f"{options.health_interval_s:g}",
        ping_interval=f"{options.ping_interval_s:g}",
        ping_timeout=f"{_PING_TIMEOUT_S:g}",
        discovery=textwrap.indent(_discovery(options.servers), " " * 6),
        endpoints=textwrap.indent(
            "\n".join(f"- endpoint: {{address: {_socket(one)}}}" for one in options.servers),
            " " * 14,
        ),
        listener_tls=_at(10, _listener_tls(options.listener_tls) if options.listener_tls else ""),
        server_tls=_at(6, _server_tls(options.server_tls) if options.server_tls else ""),
        **_access_log(options.access_log),
    )
    return "\n".join(line for line in text.splitlines() if line.strip() != "#-") + "\n"


def _at(columns: int, text: str) -> str:
    """``text`` from this column on; a line that is taken out where there is none."""
    return textwrap.indent(text, " " * columns) if text else "#-"


def _socket(address: Address) -> str:
    host = json.dumps(address.host)
    return f"{{socket_address: {{address: {host}, port_value: {address.port}}}}}"


def _discovery(servers: tuple[Address, ...]) -> str:
    if not any(is_name(server.host) for server in servers):
        return "type: STATIC"
    return textwrap.dedent("""\
        # Every address of a name is a server. One that is gone from DNS is used until it says NOT_SERVING.
        type: STRICT_DNS
        dns_refresh_rate: 2s
        dns_failure_refresh_rate: {base_interval: 1s, max_interval: 2s}
        dns_lookup_family: ALL""")


def _access_log(path: Path | None) -> dict[str, str]:
    if path is None:
        kind = "stdout", "stream.v3.StdoutAccessLog", "#-"
    else:
        kind = "file", "file.v3.FileAccessLog", " " * 22 + f"path: {_text(path)}"
    return dict(zip(("access_log_kind", "access_log_type", "access_log_path"), kind, strict=True))


def _text(path: Path) -> str:
    """A path as YAML; JSON is YAML."""
    return json.dumps(str(path))


def _listener_tls(tls: ListenerTls) -> str:
    demand = "\n    require_client_certificate: true" if tls.client_ca else ""
    text = f"""\
transport_socket:
  name: envoy.transport_sockets.tls
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext{demand}
    common_tls_context:
      alpn_protocols: [h2]
      tls_params: {{tls_minimum_protocol_version: TLSv1_2}}
      tls_certificates:
        - certificate_chain: {{filename: {_text(tls.cert)}}}
          private_key: {{filename: {_text(tls.key)}}}"""
    if tls.client_ca is not None:
        text += f"\n      validation_context: {{trusted_ca: {{filename: {_text(tls.client_ca)}}}}}"
    return text


def _server_tls(tls: ServerTls) -> str:
    names, sni = "", ""
    if tls.name is not None:
        name = json.dumps(tls.name)
        sni = f"\n    sni: {name}"
        names = f"""
        match_typed_subject_alt_names:
          - {{san_type: DNS, matcher: {{exact: {name}}}}}"""
    text = f"""\
transport_socket:
  name: envoy.transport_sockets.tls
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext{sni}
    common_tls_context:
      alpn_protocols: [h2]
      tls_params: {{tls_minimum_protocol_version: TLSv1_2}}
      validation_context:
        trusted_ca: {{filename: {_text(tls.ca)}}}{names}"""
    if tls.cert is not None and tls.key is not None:
        text += f"""
      tls_certificates:
        - certificate_chain: {{filename: {_text(tls.cert)}}}
          private_key: {{filename: {_text(tls.key)}}}"""
    return text
