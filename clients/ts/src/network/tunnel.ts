/** A connection to a server through a proxy: HTTP CONNECT over TCP or TLS, or SOCKS. */
import { request as requestHttp, STATUS_CODES } from "node:http";
import { connect as connectTcp, isIP, isIPv6, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { ProxyError, type ProxyServer } from "./proxy.ts";

/**
 * Deadline of a proxy's answer, from the dial, in ms. Below the 10 s deadline of a stream's dial,
 * whose message is less exact.
 */
const PROXY_DEADLINE_MS = 8_000;

/** The server at the end of a tunnel. */
export interface TunnelTarget {
  /** Without IPv6 brackets. */
  host: string;
  port: number;
}

/** Connects to the target through a new connection to the proxy. Rejects with a ProxyError. */
export async function openTunnel(proxy: ProxyServer, target: TunnelTarget): Promise<Socket> {
  const socket = connectTcp({ host: proxy.hostname, port: proxy.port });
  try {
    await connected(socket, "connect");
  } catch (error) {
    socket.destroy();
    throw unreachable(proxy, error);
  }
  return tunnelOver(socket, proxy, target);
}

/**
 * Connects to the target through an open connection to the proxy. Rejects with a ProxyError after
 * destroying the socket.
 */
export async function tunnelOver(socket: Socket, proxy: ProxyServer, target: TunnelTarget): Promise<Socket> {
  socket.setNoDelay();
  const deadline = setTimeout(
    () => socket.destroy(new Error(`no answer within ${PROXY_DEADLINE_MS / 1000} s`)),
    PROXY_DEADLINE_MS,
  );
  try {
    switch (proxy.protocol) {
      case "http":
        return await connectThrough(socket, proxy, target);
      case "https":
        return await connectThrough(await withTls(socket, proxy), proxy, target);
      case "socks4":
      case "socks5":
        return await socksThrough(socket, proxy, target);
    }
  } catch (error) {
    socket.destroy();
    if (error instanceof ProxyError) throw error;
    throw new ProxyError(
      `the proxy ${proxy.shown} (${proxy.setting}) does not lead to ${addressOf(target)}: ${wordsOf(error)}`,
      {
        setting: proxy.setting,
        advice: `is it a proxy of that kind, and does it answer? Correct ${proxy.setting}, or list ${target.host} in NO_PROXY if it is reachable without`,
        cause: error,
      },
    );
  } finally {
    clearTimeout(deadline);
  }
}

/** The error for a proxy without a connection. */
export function unreachable(proxy: ProxyServer, error: unknown): ProxyError {
  return new ProxyError(`the proxy ${proxy.shown} (${proxy.setting}) cannot be reached: ${wordsOf(error)}`, {
    setting: proxy.setting,
    advice: `correct or unset ${proxy.setting}, or list the server in NO_PROXY if it is reachable without a proxy`,
    cause: error,
  });
}

/** A proxy's certificate is checked against the proxy's name in the setting. */
async function withTls(socket: Socket, proxy: ProxyServer): Promise<Socket> {
  const secured = connectTls({
    socket,
    host: proxy.hostname,
    ...(isIP(proxy.hostname) === 0 ? { servername: proxy.hostname } : {}),
  });
  await connected(secured, "secureConnect");
  return secured;
}

function connectThrough(socket: Socket, proxy: ProxyServer, target: TunnelTarget): Promise<Socket> {
  const address = addressOf(target);
  const { credentials } = proxy;
  const headers: Record<string, string> = { host: address };
  if (credentials !== undefined) {
    const basic = Buffer.from(`${credentials.name}:${credentials.password}`).toString("base64");
    headers["proxy-authorization"] = `Basic ${basic}`;
  }
  return new Promise((resolve, reject) => {
    const request = requestHttp({
      method: "CONNECT",
      path: address,
      headers,
      createConnection: () => socket,
    });
    request.once("connect", (response, tunnel, head) => {
      request.removeAllListeners();
      // The socket's next owner handles later errors; until then an error must not end the process.
      tunnel.on("error", () => {});
      const status = response.statusCode ?? 0;
      if (status >= 200 && status < 300) {
        if (head.length > 0) tunnel.unshift(head);
        resolve(socket);
      } else {
        const schemes = String(response.headers["proxy-authenticate"] ?? "");
        reject(refused(proxy, target, status, schemes));
      }
    });
    request.once("response", (response) => reject(refused(proxy, target, response.statusCode ?? 0, "")));
    request.on("error", reject);
    request.end();
  });
}

/** Builds the error of a proxy's refusal; the message names the setting. */
function refused(proxy: ProxyServer, target: TunnelTarget, status: number, schemes: string): ProxyError {
  const { setting, shown } = proxy;
  const answer = `${status} ${STATUS_CODES[status] ?? ""}`.trim();
  const error = (message: string, advice: string) => new ProxyError(message, { setting, advice });
  if (status === 407) {
    const asked = schemes.split(",").map((scheme) => scheme.trim().split(" ")[0] ?? "");
    if (schemes !== "" && !asked.some((scheme) => /^basic$/i.test(scheme))) {
      return error(
        `the proxy ${shown} (${setting}) asks for ${asked.join(", ")} authentication (${answer}), and only Basic can be given`,
        `have a local proxy that knows ${asked[0]} stand in between (cntlm, px) and name that one in ${setting}`,
      );
    }
    return proxy.credentials === undefined
      ? error(
          `the proxy ${shown} (${setting}) wants a name and a password (${answer})`,
          `write them into ${setting}: ${proxy.protocol}://name:password@${shown.replace(/^.*\/\//, "")}`,
        )
      : error(
          `the proxy ${shown} does not take the name and password that ${setting} holds (${answer})`,
          `correct them in ${setting}; characters like @ : / % in them are written as %40 %3A %2F %25`,
        );
  }
  if (status === 403) {
    return error(
      `the proxy ${shown} (${setting}) does not allow a connection to ${addressOf(target)} (${answer})`,
      `have it allowed at the proxy (CONNECT to port ${target.port}), or list ${target.host} in NO_PROXY if it is reachable without a proxy`,
    );
  }
  if (status === 502 || status === 503 || status === 504) {
    return error(
      `the proxy ${shown} (${setting}) cannot reach ${addressOf(target)} (${answer})`,
      `is the server up and its name right? List ${target.host} in NO_PROXY if only this machine reaches it`,
    );
  }
  return error(
    `the proxy ${shown} (${setting}) answers CONNECT ${addressOf(target)} with ${answer}`,
    `is ${setting} the address of an HTTP proxy that allows CONNECT?`,
  );
}

async function socksThrough(socket: Socket, proxy: ProxyServer, target: TunnelTarget): Promise<Socket> {
  // Few networks have such a proxy.
  const { SocksClient } = await import("socks");
  const { credentials } = proxy;
  const made = await SocksClient.createConnection({
    command: "connect",
    destination: target,
    existing_socket: socket,
    timeout: PROXY_DEADLINE_MS,
    proxy: {
      host: proxy.hostname,
      port: proxy.port,
      type: proxy.protocol === "socks4" ? 4 : 5,
      ...(credentials === undefined ? {} : { userId: credentials.name, password: credentials.password }),
    },
  });
  return made.socket;
}

function connected(socket: Socket, event: "connect" | "secureConnect"): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(
      () => reject(new Error(`no answer within ${PROXY_DEADLINE_MS / 1000} s`)),
      PROXY_DEADLINE_MS,
    );
    const settle = (error?: Error) => {
      clearTimeout(timer);
      if (error === undefined) resolve();
      else reject(error);
    };
    socket.once(event, () => settle());
    socket.on("error", settle);
    socket.once("close", () => settle(new Error("it closed the connection")));
  });
}

const addressOf = ({ host, port }: TunnelTarget) => `${isIPv6(host) ? `[${host}]` : host}:${port}`;

function wordsOf(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length > 0) return wordsOf(error.errors[0]);
  return error instanceof Error && error.message !== "" ? error.message : String(error);
}
