/** The reason why a replica cannot use NATS, with advice. */
import { isIP } from "node:net";
import type { NatsConfig } from "../../config.ts";
import { codeOf } from "../../errors.ts";

/** A connection to a server that failed, or a refusal by the server. */
export class NatsTrouble extends Error {
  readonly server: string;
  readonly what: string;
  readonly advice: string;

  constructor(error: unknown, options: { nats: NatsConfig; server: string }) {
    const { what, advice } = explain(error, options.nats);
    super(`NATS at ${options.server}: ${what}; ${advice}`, { cause: error });
    this.name = "NatsTrouble";
    this.server = options.server;
    this.what = what;
    this.advice = advice;
  }
}

/** The host of host:port, without the brackets of IPv6. */
export function hostOf(server: string): string {
  const host = server.slice(0, server.lastIndexOf(":"));
  const bare = host.replace(/^\[|\]$/g, "");
  return isIP(bare) ? bare : host;
}

type Explanation = { what: string; advice: string };

const untrusted = new Set([
  "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
  "UNABLE_TO_GET_ISSUER_CERT",
  "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
  "SELF_SIGNED_CERT_IN_CHAIN",
  "DEPTH_ZERO_SELF_SIGNED_CERT",
  "CERT_SIGNATURE_FAILURE",
  "CERT_UNTRUSTED",
]);
const unreadable = new Set(["ENOENT", "EACCES", "EISDIR", "EPERM"]);
const unresolved = new Set(["ENOTFOUND", "EAI_AGAIN"]);
const closed = new Set(["ECONNRESET", "EPIPE"]);

function explain(error: unknown, nats: NatsConfig): Explanation {
  const { name, message, code, path } = factsOf(error);
  if (path !== undefined && unreadable.has(code)) return unreadableFile(nats, path, message);
  if (untrusted.has(code)) return untrustedServer(nats);
  if (/CERTIFICATE|UNKNOWN_CA/.test(code) && /alert/i.test(message)) return refusedClient(nats);
  switch (code) {
    case "CERT_HAS_EXPIRED":
    case "CERT_NOT_YET_VALID":
      return {
        what: `its certificate is not valid now (${message})`,
        advice: "renew it on the server, or set this machine's clock",
      };
    case "ERR_TLS_CERT_ALTNAME_INVALID":
      return {
        what: `its certificate is for another name (${message})`,
        advice: "name the servers in PINION_NATS_URL as their certificates do",
      };
    case "ERR_OSSL_X509_KEY_VALUES_MISMATCH":
      return {
        what: "PINION_NATS_KEY_FILE is not the key of the certificate in PINION_NATS_CERT_FILE",
        advice: "set both to files that belong together",
      };
    case "ECONNREFUSED":
      return {
        what: "nobody listens there",
        advice: "start NATS, or check the hosts and ports in PINION_NATS_URL",
      };
  }
  if (unresolved.has(code)) {
    return { what: `there is no such host (${message})`, advice: "check the hosts in PINION_NATS_URL" };
  }
  if (closed.has(code) && nats.tls) {
    return {
      what: "it ended the connection within the TLS handshake",
      advice: nats.tls.certFile
        ? "where it verifies its clients, the certificate in PINION_NATS_CERT_FILE has to be of an authority that it trusts"
        : "where it verifies its clients, set PINION_NATS_CERT_FILE and PINION_NATS_KEY_FILE",
    };
  }
  if (/does not support 'tls'/.test(message)) {
    return {
      what: "it speaks no TLS",
      advice: "turn TLS on there, or use nats:// in PINION_NATS_URL and no PINION_NATS_CA_FILE",
    };
  }
  switch (name) {
    case "AuthorizationError":
    case "UserAuthenticationExpiredError":
      return refusedCredentials(nats, message);
    case "PermissionViolationError":
      return {
        what: `its permissions do not suffice (${message})`,
        advice: `let Pinion's user publish and subscribe ${nats.subject}.>`,
      };
    default:
      return { what: message, advice: "check PINION_NATS_URL and its credentials" };
  }
}

/** Some errors of the client wrap an error with more detail. */
function factsOf(error: unknown): { name: string; message: string; code: string; path: string | undefined } {
  if (!(error instanceof Error)) return { name: "", message: String(error), code: "", path: undefined };
  const { name, message } = error;
  const code = codeOf(error) ?? codeOf(error.cause) ?? "";
  const { path } = error as NodeJS.ErrnoException;
  // OpenSSL's end with a line break.
  return { name, message: message.trim(), code, path };
}

function unreadableFile(nats: NatsConfig, path: string, message: string): Explanation {
  const settings: [name: string, file: string | undefined][] = [
    ["PINION_NATS_CA_FILE", nats.tls?.caFile],
    ["PINION_NATS_CERT_FILE", nats.tls?.certFile],
    ["PINION_NATS_KEY_FILE", nats.tls?.keyFile],
    ["PINION_NATS_CREDENTIALS_FILE", nats.credentialsFile],
  ];
  const setting = settings.find(([, file]) => file === path)?.[0] ?? "a file";
  return {
    what: `${setting} cannot be read (${message})`,
    advice: "set it to a file that this process may read",
  };
}

function untrustedServer({ tls }: NatsConfig): Explanation {
  return tls?.caFile
    ? {
        what: `its certificate is of no authority in ${tls.caFile}`,
        advice: "put the authority of the NATS servers into PINION_NATS_CA_FILE",
      }
    : {
        what: "its certificate is of no authority that this machine trusts",
        advice: "set PINION_NATS_CA_FILE to the PEM file of the NATS servers' authority",
      };
}

function refusedClient({ tls }: NatsConfig): Explanation {
  return tls?.certFile
    ? {
        what: `it does not accept the certificate in ${tls.certFile}`,
        advice: "the certificate in PINION_NATS_CERT_FILE has to be of an authority that it trusts",
      }
    : {
        what: "it wants a certificate of its clients",
        advice: "set PINION_NATS_CERT_FILE and PINION_NATS_KEY_FILE",
      };
}

function refusedCredentials(nats: NatsConfig, message: string): Explanation {
  const given = nats.credentialsFile
    ? "the credentials in PINION_NATS_CREDENTIALS_FILE"
    : nats.token !== undefined
      ? "the token in PINION_NATS_TOKEN"
      : nats.user !== undefined
        ? `the user "${nats.user}" with the password in PINION_NATS_URL`
        : undefined;
  return given
    ? { what: `it refuses ${given} (${message})`, advice: "check what the server's configuration has" }
    : {
        what: `it lets nobody in without credentials (${message})`,
        advice: "set PINION_NATS_TOKEN, PINION_NATS_CREDENTIALS_FILE, or user:password@ in PINION_NATS_URL",
      };
}
