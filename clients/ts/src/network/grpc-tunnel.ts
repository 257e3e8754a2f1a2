import type { Socket } from "node:net";
import * as grpc from "@grpc/grpc-js";
import { ProxyError, type ProxyServer } from "./proxy.ts";
import { type TunnelTarget, tunnelOver } from "./tunnel.ts";

type Connector = ReturnType<grpc.ChannelCredentials["_createSecureConnector"]>;

/**
 * Credentials of a channel whose address is a proxy's: on the connection that grpc-js has made to the proxy, the tunnel to
 * the server is asked for, and the inner credentials go on from there. (grpc-js reads proxy variables by itself, but only
 * some of them, and does not tell what a proxy answers; so it is told nothing of them.)
 */
export class TunnelCredentials extends grpc.ChannelCredentials {
  readonly #inner: grpc.ChannelCredentials;
  readonly #proxy: ProxyServer;
  readonly #target: TunnelTarget;
  /** Why the last dial went no further than the proxy. */
  problem: ProxyError | undefined;
  /** The proxy has led to the server: what goes wrong from here on is not its. */
  isThrough = false;

  constructor(inner: grpc.ChannelCredentials, options: { proxy: ProxyServer; target: TunnelTarget }) {
    super();
    this.#inner = inner;
    this.#proxy = options.proxy;
    this.#target = options.target;
  }

  override _isSecure(): boolean {
    return this.#inner._isSecure();
  }

  override _equals(other: grpc.ChannelCredentials): boolean {
    return this === other;
  }

  override _createSecureConnector(
    ...[channelTarget, options, callCredentials]: Parameters<
      grpc.ChannelCredentials["_createSecureConnector"]
    >
  ): Connector {
    const { host, port } = this.#target;
    const authority = host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
    const inner = this.#inner._createSecureConnector(
      channelTarget,
      // By this option TLS knows whose certificate it is to see; the channel itself does not get it, and dials the proxy.
      { ...options, "grpc.http_connect_target": `dns:${authority}` },
      callCredentials,
    );
    return {
      connect: async (socket: Socket) => {
        try {
          const tunnel = await tunnelOver(socket, this.#proxy, this.#target);
          this.isThrough = true;
          return await inner.connect(tunnel);
        } catch (error) {
          if (error instanceof ProxyError) this.problem = error;
          throw error;
        }
      },
      waitForReady: () => inner.waitForReady(),
      getCallCredentials: () => inner.getCallCredentials(),
      destroy: () => inner.destroy(),
    };
  }
}
