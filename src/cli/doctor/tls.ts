import { X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import { connect } from "node:tls";
import { openTunnel, type ProxySetting, proxyFor } from "@pinion/client/network";
import { dayMs, formatLength } from "../print/lengths.ts";
import type { Check } from "./check.ts";

/**
 * Minimum remaining time of a certificate without a remark, in ms (14 days): a renewal takes time.
 */
const leftMsMin = 14 * dayMs;
const connectTimeoutMs = 5_000;

type Problem = { found: string; advice: string };

const notTrusted: Problem = {
  found: "its certificate is of an authority that this machine does not know",
  advice: "give the authority's certificate: NODE_EXTRA_CA_CERTS=/path/to/ca.pem",
};

const problems: Record<string, Problem> = {
  CERT_HAS_EXPIRED: { found: "its certificate has expired", advice: "renew it, and start the server again" },
  CERT_NOT_YET_VALID: {
    found: "its certificate is not good yet",
    advice: "compare the clocks of both machines",
  },
  DEPTH_ZERO_SELF_SIGNED_CERT: notTrusted,
  SELF_SIGNED_CERT_IN_CHAIN: notTrusted,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: notTrusted,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: notTrusted,
  ERR_TLS_CERT_ALTNAME_INVALID: {
    found: "its certificate is for another name",
    advice: "use the name that it was made for in --url, or have one made for this name",
  },
  EPROTO: {
    found: "it does not speak TLS there, or wants a client's certificate",
    advice: "write http:// for a server without TLS",
  },
  ERR_SSL_WRONG_VERSION_NUMBER: {
    found: "it does not speak TLS there",
    advice: "write http:// for a server without TLS",
  },
};

/** The meaning of a TLS connection's error; undefined for other errors. */
export function certificateProblem(code: string): Problem | undefined {
  return problems[code];
}

/** Checks the expiry of a TLS server's certificate. Empty for http://. */
export async function checkServedCertificate(
  url: string,
  setting: ProxySetting | undefined,
): Promise<Check[]> {
  const { protocol, hostname, port } = new URL(url);
  if (protocol !== "https:") return [];
  const host = hostname.replace(/^\[|\]$/g, "");
  const place = { host, port: Number(port || 443) };
  const proxy = proxyFor(url, setting);
  // The proxy worked for the request before; after a failure now the check is skipped.
  const tunnel = proxy && (await openTunnel(proxy, place).catch(() => undefined));
  if (proxy && !tunnel) return [];
  const certificate = await new Promise<X509Certificate | undefined>((resolve) => {
    const socket = connect({
      ...place,
      ...(tunnel ? { socket: tunnel } : {}),
      servername: isIP(host) === 0 ? host : "",
      // Reads the certificate without verification; the request for /healthz has verified the
      // certificate before.
      rejectUnauthorized: false,
      timeout: connectTimeoutMs,
    });
    const end = (found: X509Certificate | undefined) => {
      socket.destroy();
      resolve(found);
    };
    socket.once("secureConnect", () => end(socket.getPeerX509Certificate()));
    socket.once("error", () => end(undefined));
    socket.once("timeout", () => end(undefined));
  });
  if (!certificate) return [];
  return [checkExpiry(certificate)];
}

/** Checks the expiry of a chain's first certificate. */
export function checkExpiry(certificate: X509Certificate): Check {
  const name = "certificate";
  const leftMs = new Date(certificate.validTo).getTime() - Date.now();
  if (leftMs <= 0) {
    const found = `has expired ${formatLength(-leftMs)} ago`;
    return { name, verdict: "bad", found, advice: "renew it, and start the server again" };
  }
  const found = `good for ${formatLength(leftMs)}, for ${certificate.subjectAltName ?? certificate.subject}`;
  if (leftMs < leftMsMin) return { name, verdict: "doubtful", found, advice: "renew it soon" };
  return { name, verdict: "good", found };
}

/** Parses a certificate; throws the problem of an invalid text. */
export function readCertificate(pem: string): X509Certificate {
  return new X509Certificate(pem);
}
