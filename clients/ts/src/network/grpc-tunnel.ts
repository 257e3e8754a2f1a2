import type { Socket } from "node:net";
import * as grpc from "@grpc/grpc-js";
import { ProxyError, type ProxyServer } from "./proxy.ts";
import { type TunnelTarget, tunnelOver } from "./tunnel.ts";

type Connector = ReturnType<grpc.ChannelCredentials["_createSecureConnector"]>;

/**
 * Credentials of a channel to a proxy's address. The tunnel to the server is requested on the
 * connection made by grpc-js, and the inner credentials continue from there. (grpc-js reads only
 * some proxy variables and hides a proxy's answer, so its own support is off.)
 */
export class TunnelCredentials extends grpc.ChannelCredentials {
  readonly #inner: grpc.ChannelCredentials;
  readonly #proxy: ProxyServer;
  readonly #target: TunnelTarget;
  /** Error of the last dial, if the tunnel was not opened. */
  problem: ProxyError | undefined;
  /** The tunnel to the server is open; later errors are not the proxy's. */
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
      // Tells TLS the server's name for the check of the certificate. The channel itself lacks the
      // option and dials the proxy.
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
