import { fromBinary, toBinary } from "@bufbuild/protobuf";
import * as grpc from "@grpc/grpc-js";
import {
  type CompleteRunRequest,
  CompleteRunRequestSchema,
  type CompleteRunResponse,
  CompleteRunResponseSchema,
  type ConnectRequest,
  ConnectRequestSchema,
  type ConnectResponse,
  ConnectResponseSchema,
  DeviceService,
} from "../gen/pinion/v1/device_pb.js";
import { TunnelCredentials } from "../network/grpc-tunnel.ts";
import { type ProxySetting, proxyFor } from "../network/proxy.ts";
import { unreachable } from "../network/tunnel.ts";

/**
 * Certificates for https:// URLs, each as PEM. Left out: the system's root certificates, no client
 * certificate.
 */
export interface TlsOptions {
  ca?: Buffer;
  cert?: Buffer;
  key?: Buffer;
}

export interface Endpoint {
  /** "http://host:port" or "https://host:port"; a path becomes a prefix of the service's name. */
  url: string;
  token: string;
  tls?: TlsOptions;
  /** Left out: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY apply; see `proxyFor`. */
  proxy?: ProxySetting;
}

/** End of a stream as a gRPC status. */
export interface StreamEnd {
  code: grpc.status;
  details: string;
}

export interface StreamHandlers {
  /** Called when the channel is connected. */
  onConnected(): void;
  onMessage(message: ConnectResponse): void;
  /** Called exactly once, also after `cancel`, and as the last call. */
  onEnd(end: StreamEnd): void;
}

export interface DeviceStream {
  /** Text for messages about failed dials: " through the proxy …"; empty without a proxy. */
  readonly via: string;
  /**
   * Writes a message; calls back when the transport has room for more, but not after the end of the
   * stream.
   */
  write(message: ConnectRequest, taken?: () => void): void;
  /** Ends this side: no further writes. */
  finish(): void;
  /** Closes the stream and its connection at once. */
  cancel(): void;
}

/**
 * Bound on a received message. An assignment has at most the prompt, the settings and the prior
 * window, far below the bound.
 */
const RECEIVE_BYTES_MAX = 8 * 1024 * 1024;

/**
 * Retry buffer of grpc-js in bytes: messages taken without having been written. Larger than the
 * largest hello (1,000 held attempts of 84 bytes), because grpc-js loses the write callback of a
 * first message larger than the buffer.
 */
const TRANSPORT_BUFFER_BYTES = 128 * 1024;

const CHANNEL_OPTIONS: grpc.ChannelOptions = {
  "grpc.max_receive_message_length": RECEIVE_BYTES_MAX,
  "grpc.max_send_message_length": -1,
  // The client retries itself; retries of grpc-js would hide a broken stream and disable
  // backpressure.
  "grpc.enable_retries": 0,
  "grpc.per_rpc_retry_buffer_size": TRANSPORT_BUFFER_BYTES,
  // A channel is never shared: each dial is a new connection.
  "grpc.use_local_subchannel_pool": 1,
  // Heartbeats and the watchdog detect dead connections; no pings.
  "grpc.keepalive_permit_without_calls": 0,
  // grpc-js knows only some of the variables; `proxyFor` knows all of them.
  "grpc.enable_http_proxy": 0,
  "grpc.service_config_disable_resolution": 1,
};

interface Target {
  /** Without IPv6 brackets. */
  host: string;
  port: number;
  credentials: grpc.ChannelCredentials;
  pathPrefix: string;
}

/** Throws a TypeError with the problem of the URL. */
export function parseEndpoint(endpoint: Pick<Endpoint, "url" | "tls">): Target {
  if (!URL.canParse(endpoint.url))
    throw new TypeError(`"${endpoint.url}" is not a URL; expected http://host:port`);
  const url = new URL(endpoint.url);
  if (url.protocol !== "http:" && url.protocol !== "https:") {
    throw new TypeError(`"${endpoint.url}" must begin with http:// or https://`);
  }
  const isTls = url.protocol === "https:";
  return {
    host: url.hostname.replace(/^\[|\]$/g, ""),
    port: Number(url.port) || (isTls ? 443 : 80),
    credentials: isTls
      ? grpc.credentials.createSsl(
          endpoint.tls?.ca ?? null,
          endpoint.tls?.key ?? null,
          endpoint.tls?.cert ?? null,
        )
      : grpc.credentials.createInsecure(),
    pathPrefix: url.pathname.replace(/\/+$/, ""),
  };
}

interface Dialled {
  client: grpc.Client;
  metadata: grpc.Metadata;
  pathPrefix: string;
  via: string;
  /** Explains a failure; the text names the proxy if the proxy is at fault. */
  explain(details: string): string;
}

/** Throws a TypeError or a ProxyError with the problem of the endpoint. */
function dial(endpoint: Endpoint): Dialled {
  const { host, port, credentials, pathPrefix } = parseEndpoint(endpoint);
  const metadata = new grpc.Metadata();
  metadata.set("authorization", `Bearer ${endpoint.token}`);
  const proxy = proxyFor(endpoint.url, endpoint.proxy);
  if (proxy === undefined) {
    const client = new grpc.Client(addressOf({ host, port }), credentials, CHANNEL_OPTIONS);
    return { client, metadata, pathPrefix, via: "", explain: (details) => details };
  }
  const tunnel = new TunnelCredentials(credentials, { proxy, target: { host, port } });
  const client = new grpc.Client(addressOf({ host: proxy.hostname, port: proxy.port }), tunnel, {
    ...CHANNEL_OPTIONS,
    "grpc.default_authority": authorityOf({ host, port }),
  });
  return {
    client,
    metadata,
    pathPrefix,
    via: ` through the proxy ${proxy.shown} (${proxy.setting})`,
    explain: (details) => {
      if (tunnel.isThrough) return details;
      const problem = tunnel.problem ?? unreachable(proxy, details);
      return `${problem.message}; ${problem.advice}`;
    },
  };
}

type Place = { host: string; port: number };
const authorityOf = ({ host, port }: Place) => `${host.includes(":") ? `[${host}]` : host}:${port}`;
const addressOf = (place: Place) => `dns:///${authorityOf(place)}`;

const encodeRequest = (message: ConnectRequest) => Buffer.from(toBinary(ConnectRequestSchema, message));
const decodeResponse = (bytes: Buffer) => fromBinary(ConnectResponseSchema, bytes);

/**
 * Opens the device's stream on a channel of its own. Later errors arrive at `onEnd`; only the call
 * itself may throw.
 */
export function openStream(endpoint: Endpoint, handlers: StreamHandlers): DeviceStream {
  const { client, metadata, pathPrefix, via, explain } = dial(endpoint);
  const call = client.makeBidiStreamRequest(
    `${pathPrefix}/${DeviceService.typeName}/Connect`,
    encodeRequest,
    decodeResponse,
    metadata,
  );
  let isOver = false;
  const end = (result: StreamEnd) => {
    if (isOver) return;
    isOver = true;
    client.close();
    const details = result.code === grpc.status.UNAVAILABLE ? explain(result.details) : result.details;
    handlers.onEnd({ ...result, details });
  };

  const channel = client.getChannel();
  const watchChannel = () => {
    if (isOver) return;
    const state = channel.getConnectivityState(false);
    if (state === grpc.connectivityState.READY) handlers.onConnected();
    else channel.watchConnectivityState(state, Number.POSITIVE_INFINITY, () => watchChannel());
  };
  watchChannel();

  call.on("data", (message: ConnectResponse) => {
    if (!isOver) handlers.onMessage(message);
  });
  call.on("status", (status: grpc.StatusObject) => end({ code: status.code, details: status.details }));
  // `status` reports the same error, but an `error` event without a listener would end the process.
  call.on("error", (error: grpc.ServiceError) =>
    end({ code: error.code ?? grpc.status.UNKNOWN, details: error.details ?? error.message }),
  );

  return {
    via,
    write(message, taken) {
      if (isOver || call.writableEnded) return;
      call.write(message, () => {
        if (!isOver) taken?.();
      });
    },
    finish() {
      if (!isOver && !call.writableEnded) call.end();
    },
    cancel() {
      call.cancel();
      end({ code: grpc.status.CANCELLED, details: "closed by the device" });
    },
  };
}

/** Result of a unary call, as a value because the caller branches. */
export type UnaryResult =
  | { kind: "answered"; response: CompleteRunResponse }
  | { kind: "failed"; code: grpc.status; details: string };

/** Calls `DeviceService.CompleteRun` on a channel of its own. Never rejects. */
export function completeRun(
  endpoint: Endpoint,
  request: CompleteRunRequest,
  options: { deadlineMs: number; signal: AbortSignal },
): Promise<UnaryResult> {
  let dialled: Dialled;
  try {
    dialled = dial(endpoint);
  } catch (error) {
    // The proxy setting is wrong; a person may correct the setting while the result waits.
    const details = error instanceof Error ? error.message : String(error);
    return Promise.resolve({ kind: "failed", code: grpc.status.UNAVAILABLE, details });
  }
  const { client, metadata, pathPrefix, explain } = dialled;
  return new Promise<UnaryResult>((resolve) => {
    const call = client.makeUnaryRequest(
      `${pathPrefix}/${DeviceService.typeName}/CompleteRun`,
      (message: CompleteRunRequest) => Buffer.from(toBinary(CompleteRunRequestSchema, message)),
      (bytes: Buffer) => fromBinary(CompleteRunResponseSchema, bytes),
      request,
      metadata,
      { deadline: Date.now() + options.deadlineMs },
      (error, response) => {
        options.signal.removeEventListener("abort", cancel);
        client.close();
        if (error !== null || response === undefined) {
          const code = error?.code ?? grpc.status.UNKNOWN;
          const details = error?.details ?? "no answer";
          resolve({
            kind: "failed",
            code,
            details: code === grpc.status.UNAVAILABLE ? explain(details) : details,
          });
        } else {
          resolve({ kind: "answered", response });
        }
      },
    );
    const cancel = () => call.cancel();
    options.signal.addEventListener("abort", cancel, { once: true });
    if (options.signal.aborted) cancel();
  });
}
