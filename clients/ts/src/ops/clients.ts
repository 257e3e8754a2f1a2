import type { DescService } from "@bufbuild/protobuf";
import {
  type Client,
  Code,
  ConnectError,
  createClient,
  type Interceptor,
  type Transport,
} from "@connectrpc/connect";
import {
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
} from "@connectrpc/connect-node";
import { CELL_HEADER } from "../cell.ts";
import type { TlsOptions } from "../device/transport.ts";
import { AgentService } from "../gen/pinion/v1/agent_pb.js";
import { DestinationService } from "../gen/pinion/v1/destination_pb.js";
import { DeviceService } from "../gen/pinion/v1/device_pb.js";
import { EventService } from "../gen/pinion/v1/event_pb.js";
import { FleetService } from "../gen/pinion/v1/fleet_pb.js";
import { HookService } from "../gen/pinion/v1/hook_pb.js";
import { OrgService } from "../gen/pinion/v1/org_pb.js";
import { RunService } from "../gen/pinion/v1/run_pb.js";
import { SignInService } from "../gen/pinion/v1/sign_in_pb.js";
import { TokenService } from "../gen/pinion/v1/token_pb.js";
import { TurnService } from "../gen/pinion/v1/turn_pb.js";
import { WatcherService } from "../gen/pinion/v1/watcher_pb.js";
import { type ProxySetting, proxyFor } from "../network/proxy.ts";
import { Sessions } from "../network/sessions.ts";
import { TunnelSessions } from "../network/tunnel-sessions.ts";
import { convertErrors } from "./errors.ts";
import { repeatLost } from "./repeat.ts";

export interface ClientOptions {
  /** "http://host:port" or "https://host:port". */
  url: string;
  /** Left out only for `device.enroll`, and for `signIns.startLogin` and `finishLogin`. */
  token?: string;
  /** The cell to ask, where a front door serves several cells and no token names the cell. */
  cell?: string;
  /** Default "connect". All protocols use HTTP/2, without TLS for http:// URLs. */
  protocol?: "connect" | "grpc" | "grpc-web";
  tls?: TlsOptions;
  /** Left out: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY apply; see `proxyFor`. */
  proxy?: ProxySetting;
  /** Deadline in ms of an answer, or of the first message of a stream. Default 30 s. */
  answerDeadlineMs?: number;
}

/** Typed clients of every service. They throw PinionErrors. */
export interface Clients {
  watchers: Client<typeof WatcherService>;
  runs: Client<typeof RunService>;
  turns: Client<typeof TurnService>;
  fleet: Client<typeof FleetService>;
  tokens: Client<typeof TokenService>;
  signIns: Client<typeof SignInService>;
  orgs: Client<typeof OrgService>;
  events: Client<typeof EventService>;
  hooks: Client<typeof HookService>;
  agents: Client<typeof AgentService>;
  destinations: Client<typeof DestinationService>;
  device: Client<typeof DeviceService>;
  /**
   * Closes the connection; open calls fail as canceled. An idle connection does not keep the
   * process alive.
   */
  close(): void;
}

const ANSWER_DEADLINE_MS = 30_000;
/** Interval of pings in ms, for finding a dead connection under an open stream. */
const PING_INTERVAL_MS = 30_000;
const PING_DEADLINE_MS = 10_000;
/**
 * Bound on an answer in bytes, above the largest answer in use (callers do not request a page of
 * windows of 1 MiB each).
 */
const READ_BYTES_MAX = 64 * 1024 * 1024;

/**
 * Creates clients for one server and one token, over one connection opened on demand. Throws a
 * ProxyError if the applicable setting names no usable proxy; a proxy's refusal is the cause of the
 * call's error.
 */
export function createClients(options: ClientOptions): Clients {
  const proxy = proxyFor(options.url, options.proxy);
  const { ca, cert, key } = options.tls ?? {};
  const tls = {
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
  };
  const session = { pingIntervalMs: PING_INTERVAL_MS, pingTimeoutMs: PING_DEADLINE_MS };
  const sessionManager =
    proxy === undefined
      ? new Sessions(options.url, session, tls)
      : new TunnelSessions({ url: options.url, proxy, tls, session });
  const deadlineMs = options.answerDeadlineMs ?? ANSWER_DEADLINE_MS;
  const transport = transportOf(options.protocol ?? "connect", {
    baseUrl: options.url,
    httpVersion: "2",
    sessionManager,
    readMaxBytes: READ_BYTES_MAX,
    interceptors: [
      convertErrors,
      repeatLost,
      ...(options.token === undefined ? [] : [bearer(options.token)]),
      ...(options.cell ? [named(options.cell)] : []),
      // connect-node has no connect timeout; without the interceptor a stalled handshake would
      // block for ever.
      answerWithin(deadlineMs, () => sessionManager.abort()),
    ],
  });
  const clients = { close: () => sessionManager.abort() };
  for (const [name, service] of Object.entries(services)) {
    let client: Client<DescService> | undefined;
    Object.defineProperty(clients, name, {
      enumerable: true,
      configurable: true,
      get: () => {
        client ??= createClient(service(), transport);
        return client;
      },
    });
  }
  return clients as Clients;
}

/**
 * Named at the first use of a client: the descriptors of all services take a command 50 ms to
 * build.
 */
const services: { [Name in keyof Omit<Clients, "close">]: () => DescService } = {
  watchers: () => WatcherService,
  runs: () => RunService,
  turns: () => TurnService,
  fleet: () => FleetService,
  tokens: () => TokenService,
  signIns: () => SignInService,
  orgs: () => OrgService,
  events: () => EventService,
  hooks: () => HookService,
  agents: () => AgentService,
  destinations: () => DestinationService,
  device: () => DeviceService,
};

type TransportOptions = Parameters<typeof createGrpcTransport>[0] & { httpVersion: "2" };

function transportOf(protocol: NonNullable<ClientOptions["protocol"]>, options: TransportOptions): Transport {
  switch (protocol) {
    case "connect":
      return createConnectTransport(options);
    case "grpc":
      return createGrpcTransport(options);
    case "grpc-web":
      return createGrpcWebTransport(options);
  }
}

function bearer(token: string): Interceptor {
  return (next) => (request) => {
    request.header.set("authorization", `Bearer ${token}`);
    return next(request);
  };
}

function named(cell: string): Interceptor {
  return (next) => (request) => {
    request.header.set(CELL_HEADER, cell);
    return next(request);
  };
}

/**
 * Deadline of an answer. A stream's answer is its headers, sent with the first message; the reader
 * handles later silence.
 */
function answerWithin(deadlineMs: number, onMissed: () => void): Interceptor {
  return (next) => async (request) => {
    let timer: NodeJS.Timeout | undefined;
    const missed = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        reject(new ConnectError(`no answer within ${deadlineMs} ms`, Code.DeadlineExceeded));
        onMissed();
      }, deadlineMs);
    });
    try {
      const answer = next(request);
      // After a missed deadline the call fails later without a listener.
      answer.catch(() => {});
      return await Promise.race([answer, missed]);
    } finally {
      clearTimeout(timer);
    }
  };
}
