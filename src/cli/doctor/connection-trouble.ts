import { connect as connectTls } from "node:tls";
import { ConnectError } from "@connectrpc/connect";
import { proxyErrorOf } from "@pinion/client";
import { exitCodes, Failure, systemCode } from "../failures.ts";

/**
 * Explains connection failures with unclear messages: TLS against a plain port or the reverse, an
 * untrusted certificate, or a server other than Pinion.
 */

/** Time limit of the TLS probe of a port, in ms. */
const probeMsMax = 2_000;

const certificateErrors = new Set([
  "DEPTH_ZERO_SELF_SIGNED_CERT",
  "SELF_SIGNED_CERT_IN_CHAIN",
  "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
  "UNABLE_TO_GET_ISSUER_CERT",
  "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
  "CERT_HAS_EXPIRED",
  "CERT_NOT_YET_VALID",
  "ERR_TLS_CERT_ALTNAME_INVALID",
]);

const noTls = /wrong version number|before secure TLS connection|packet length too long|SSL routines/i;
const broken = /protocol error|stream closed|socket hang up|socket disconnected|ECONNRESET|ECONNABORTED/i;
/** Codes of this system, never of an answer: the other end has gone. */
const closedCodes = new Set(["ECONNRESET", "ECONNABORTED", "EPIPE"]);
/** Errors of an HTTP answer from another kind of server. */
const foreign = /unsupported content type|HTTP 4\d\d|HTTP 3\d\d/i;

/** The failure with a clear message for a call's error; undefined if the error is clear. */
export async function connectionTrouble(error: unknown, url: string): Promise<Failure | undefined> {
  if (!(error instanceof ConnectError) || error.details.length > 0) return undefined;
  if (proxyErrorOf(error)) return undefined;
  const code = systemCode(error) ?? "";
  const text = error.rawMessage;
  const isSecure = url.startsWith("https:");
  const failure = (message: string, advice: string) => new Failure(exitCodes.unreachable, message, advice);
  if (code === "ENOTFOUND" || code === "EAI_AGAIN") {
    return failure(
      `no Pinion at ${url}: the name ${new URL(url).hostname} is not known here`,
      "check --url, PINION_URL and this machine's DNS",
    );
  }
  if (certificateErrors.has(code)) {
    return failure(
      `the certificate of ${url} is not trusted: ${text}`,
      "name the authority that signed it with NODE_EXTRA_CA_CERTS=<file>, or call the server by the name in its certificate",
    );
  }
  if (isSecure && noTls.test(text)) {
    return failure(
      `${url} does not speak TLS`,
      `use ${url.replace(/^https:/, "http:")}, or turn TLS on at the server with PINION_TLS_CERT_FILE and PINION_TLS_KEY_FILE`,
    );
  }
  if (!isSecure && broken.test(text) && (await speaksTls(url))) {
    return failure(`${url} speaks TLS`, `use ${url.replace(/^http:/, "https:")}`);
  }
  if (closedCodes.has(code) || /stream closed/i.test(text)) {
    return failure(
      `${url} closed the connection without an answer`,
      "is a Pinion behind the port, or a tunnel or proxy whose other end is away? `pinion doctor` looks",
    );
  }
  if (foreign.test(text) || /protocol error/i.test(text)) {
    return failure(
      `something answers at ${url}, but not as a Pinion does`,
      "is the port right, and does a proxy in between pass HTTP/2 on? `pinion doctor` looks",
    );
  }
  return undefined;
}

function speaksTls(url: string): Promise<boolean> {
  const { hostname, port } = new URL(url);
  return new Promise((done) => {
    const socket = connectTls({
      host: hostname.replace(/^\[|\]$/g, ""),
      port: Number(port || 80),
      // The probe only tests the handshake and sends no data.
      rejectUnauthorized: false,
      timeout: probeMsMax,
    });
    const end = (answer: boolean) => {
      socket.destroy();
      done(answer);
    };
    socket.once("secureConnect", () => end(true));
    socket.once("timeout", () => end(false));
    socket.on("error", () => end(false));
  });
}
