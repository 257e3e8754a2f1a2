import type { ClientHttp2Stream, ClientSessionRequestOptions, OutgoingHttpHeaders } from "node:http2";
import { isIP, type Socket } from "node:net";
import { type ConnectionOptions, connect as connectTls } from "node:tls";
import { Code, ConnectError } from "@connectrpc/connect";
import type { Http2SessionManager } from "@connectrpc/connect-node";
import type { ProxyServer } from "./proxy.ts";
import { Sessions } from "./sessions.ts";
import { openTunnel } from "./tunnel.ts";

type SessionOptions = ConstructorParameters<typeof Http2SessionManager>[1];

/**
 * HTTP/2 connections through a proxy, for a transport of connect-node: a single connection, opened
 * on demand. The tunnel is opened before the session, because node:http2 loses the ends of answers
 * on foreign sockets.
 */
export class TunnelSessions {
  readonly authority: string;
  readonly #url: URL;
  readonly #proxy: ProxyServer;
  readonly #tls: ConnectionOptions;
  readonly #options: SessionOptions;
  #current: Promise<Http2SessionManager> | undefined;
  #manager: Http2SessionManager | undefined;

  constructor(options: {
    url: string;
    proxy: ProxyServer;
    tls: ConnectionOptions;
    session: SessionOptions;
  }) {
    this.#url = new URL(options.url);
    this.authority = this.#url.origin;
    this.#proxy = options.proxy;
    this.#tls = options.tls;
    this.#options = options.session;
  }

  async request(
    method: string,
    path: string,
    headers: OutgoingHttpHeaders,
    options: Omit<ClientSessionRequestOptions, "signal">,
  ): Promise<ClientHttp2Stream> {
    return (await this.#ready()).request(method, path, headers, options);
  }

  notifyResponseByteRead(stream: ClientHttp2Stream): void {
    this.#manager?.notifyResponseByteRead(stream);
  }

  /** Closes the connection and its calls. */
  abort(): void {
    this.#manager?.abort();
    this.#manager = undefined;
    this.#current = undefined;
  }

  #ready(): Promise<Http2SessionManager> {
    const state = this.#manager?.state();
    if (state === "closed" || state === "error") this.#current = undefined;
    if (this.#current !== undefined) return this.#current;
    const current = this.#open().then(
      (manager) => {
        if (this.#current === current) this.#manager = manager;
        else manager.abort();
        return manager;
      },
      (error: unknown) => {
        if (this.#current === current) this.#current = undefined;
        throw error instanceof Error
          ? new ConnectError(error.message, Code.Unavailable, undefined, undefined, error)
          : error;
      },
    );
    this.#current = current;
    this.#manager = undefined;
    return current;
  }

  async #open(): Promise<Http2SessionManager> {
    const isSecure = this.#url.protocol === "https:";
    const host = this.#url.hostname.replace(/^\[|\]$/g, "");
    const tunnel = await openTunnel(this.#proxy, {
      host,
      port: Number(this.#url.port) || (isSecure ? 443 : 80),
    });
    let socket: Socket | undefined = tunnel;
    if (isSecure) {
      const servername = isIP(host) === 0 ? { servername: host } : {};
      socket = connectTls({ ...this.#tls, ...servername, host, socket: tunnel, ALPNProtocols: ["h2"] });
    }
    return new Sessions(this.authority, this.#options, {
      createConnection: () => {
        const taken = socket;
        socket = undefined;
        // A second connection needs a tunnel of its own; the next call opens one.
        if (taken === undefined) throw new ConnectError("the connection was lost", Code.Unavailable);
        return taken;
      },
    });
  }
}
