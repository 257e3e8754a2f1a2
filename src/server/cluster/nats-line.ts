/**
 * The line to NATS: one connection, made again for ever when it breaks, ends or fails a heartbeat.
 */
import { readFile } from "node:fs/promises";
import {
  type ConnectionOptions,
  connect,
  credsAuthenticator,
  type NatsConnection,
  type TlsOptions,
} from "@nats-io/transport-node";
import type { NatsConfig } from "../../config.ts";
import type { Logger } from "../../telemetry/log.ts";
import { sleep, within } from "../../time/abort.ts";
import { reconnect } from "../../time/reconnect.ts";
import { hostOf, NatsTrouble } from "./nats-trouble.ts";

const connectTimeoutMs = 5_000;
/** Maximum milliseconds of closing a connection or a line. */
export const closeTimeoutMs = 2_000;

export type Line = {
  /** Resolves with the current connection or the next; with undefined when the line is closed. */
  connected(): Promise<NatsConnection | undefined>;
  isUp(): boolean;
  close(): Promise<void>;
};

/** Opens the line; it connects in the background. */
export function openLine(
  options: Pick<LiveOptions, "nats" | "heartbeatMs" | "log" | "subjects" | "onMessage"> & {
    onConnected(): void;
  },
): Line {
  const stopping = new AbortController();
  let live: NatsConnection | undefined;
  const wake: (() => void)[] = [];
  const wakeAll = () => {
    for (const resolve of wake.splice(0)) resolve();
  };
  const connecting = reconnect({
    signal: stopping.signal,
    log: options.log,
    lost: "there is no connection to NATS; will try again",
    live: () =>
      liveOnce({
        ...options,
        stop: stopping.signal,
        onConnected(connection) {
          live = connection;
          wakeAll();
          options.onConnected();
        },
        onLost() {
          live = undefined;
        },
      }),
  });
  return {
    async connected() {
      while (!live && !stopping.signal.aborted) await new Promise<void>((resolve) => wake.push(resolve));
      return stopping.signal.aborted ? undefined : live;
    },
    isUp: () => live !== undefined,
    async close() {
      stopping.abort();
      wakeAll();
      await within(connecting, closeTimeoutMs);
    },
  };
}

/** Rejects unless the server answers in time. */
export async function answered(connection: NatsConnection, timeoutMs: number): Promise<void> {
  if (
    !(await within(
      connection.flush().then(() => true),
      timeoutMs,
    ))
  ) {
    throw new Error(`NATS did not answer within ${timeoutMs} ms`);
  }
}

type LiveOptions = {
  nats: NatsConfig;
  heartbeatMs: number;
  stop: AbortSignal;
  subjects: string[];
  onConnected(connection: NatsConnection): void;
  onLost(): void;
  onMessage(payload: string): void;
  log: Logger;
};

/**
 * One connection's life: resolves with the error that ended the connection, or with undefined after
 * `stop`.
 */
async function liveOnce(options: LiveOptions): Promise<unknown> {
  const { stop, heartbeatMs, log } = options;
  const broken = new AbortController();
  const over = AbortSignal.any([stop, broken.signal]);
  let connection: NatsConnection | undefined;
  try {
    const dialled = await dial(options.nats, stop);
    const { server } = dialled;
    connection = dialled.connection;
    connection.closed().then((error) => broken.abort(error ?? new Error("the connection ended")));
    // The server refuses subjects that the user may not publish to; messages to them would be lost
    // without a trace.
    onRefusal(connection, (error) => broken.abort(new NatsTrouble(error, { nats: options.nats, server })));
    for (const subject of options.subjects) {
      connection.subscribe(subject, {
        callback(error, message) {
          // An error here names a subject that the user may not subscribe to.
          if (error) broken.abort(new NatsTrouble(error, { nats: options.nats, server }));
          else if (!over.aborted) guard(log, () => options.onMessage(message.string()));
        },
      });
    }
    await answered(connection, heartbeatMs);
    if (!over.aborted) options.onConnected(connection);
    while (!over.aborted) {
      await sleep(heartbeatMs, over);
      if (!over.aborted) await answered(connection, heartbeatMs);
    }
    return broken.signal.reason;
  } catch (error) {
    return error;
  } finally {
    options.onLost();
    if (connection) await within(connection.close(), closeTimeoutMs).catch(() => undefined);
  }
}

/** Calls back for every refusal by the server while the connection lasts. */
async function onRefusal(connection: NatsConnection, refused: (error: Error) => void): Promise<void> {
  for await (const status of connection.status()) if (status.type === "error") refused(status.error);
}

/**
 * Connects to the first server that accepts the client, in random order. Servers are tried one
 * after another, because each is asked for a certificate of its own name. Rejects with the error of
 * the last server.
 */
async function dial(
  nats: NatsConfig,
  stop?: AbortSignal,
): Promise<{ connection: NatsConnection; server: string }> {
  let trouble: unknown;
  for (const server of shuffled(nats.servers)) {
    try {
      return { connection: await connect(await connectionOptions(nats, server)), server };
    } catch (error) {
      trouble = new NatsTrouble(error, { nats, server });
    }
    if (stop?.aborted) break;
  }
  throw trouble;
}

function shuffled(servers: readonly string[]): string[] {
  return servers
    .map((server) => ({ server, place: Math.random() }))
    .sort((a, b) => a.place - b.place)
    .map(({ server }) => server);
}

/** Files are read at every connect, so that credentials can be renewed while replicas run. */
async function connectionOptions(nats: NatsConfig, server: string): Promise<ConnectionOptions> {
  return {
    servers: server,
    name: "pinion",
    timeout: connectTimeoutMs,
    // We reconnect ourselves, because every reconnect is a resync.
    reconnect: false,
    noEcho: true,
    ...(nats.user !== undefined ? { user: nats.user, pass: nats.password ?? "" } : {}),
    ...(nats.token !== undefined ? { token: nats.token } : {}),
    ...(nats.credentialsFile
      ? { authenticator: credsAuthenticator(await readFile(nats.credentialsFile)) }
      : {}),
    ...(nats.tls ? { tls: await tlsOptions(nats.tls, hostOf(server)) } : {}),
  };
}

async function tlsOptions(
  { caFile, certFile, keyFile }: NonNullable<NatsConfig["tls"]>,
  host: string,
): Promise<TlsOptions> {
  const options = {
    // For an address the client gives Node no name, and Node would look for "localhost" in the
    // certificate.
    host,
    ...(caFile ? { ca: await readFile(caFile, "utf8") } : {}),
    ...(certFile ? { cert: await readFile(certFile, "utf8") } : {}),
    ...(keyFile ? { key: await readFile(keyFile, "utf8") } : {}),
  };
  return options;
}

/**
 * Connects once, and returns the server's version and the round trip time in milliseconds. Rejects
 * with a {@link NatsTrouble}.
 */
export async function inspectNats(nats: NatsConfig): Promise<{ version: string; roundTripMs: number }> {
  const { connection, server } = await dial(nats);
  try {
    const roundTripMs = await connection.rtt();
    return { version: connection.info?.version ?? "unknown", roundTripMs };
  } catch (error) {
    throw new NatsTrouble(error, { nats, server });
  } finally {
    await within(connection.close(), closeTimeoutMs);
  }
}

/** Logs an error of a listener, so that the line goes on. */
export function guard(log: Logger, call: () => void): void {
  try {
    call();
  } catch (error) {
    log.error({ err: error }, "a listener of the bus failed");
  }
}
