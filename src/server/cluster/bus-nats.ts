/**
 * The bus over NATS, for fleets beyond the capacity of PostgreSQL's notifications. Core NATS only:
 * NATS stores nothing, and the sweep finds the work of lost messages.
 *
 * One connection, reconnected for ever when it breaks, ends or fails a heartbeat. After every
 * connect `onResync` reports that messages may have been missed. Without a connection, control
 * messages wait within their limit and are sent later.
 */
import { readFile } from "node:fs/promises";
import {
  type ConnectionOptions,
  connect,
  credsAuthenticator,
  type NatsConnection,
  type TlsOptions,
} from "@nats-io/transport-node";
import { sleep, within } from "../../abort.ts";
import type { NatsConfig } from "../../config.ts";
import type { Logger } from "../../log.ts";
import { reconnect } from "../../reconnect.ts";
import type { Bus, BusHandlers, BusMessage } from "./bus.ts";
import { type BusBatch, createBusSender, readEnvelope } from "./bus-sender.ts";
import { hostOf, NatsTrouble } from "./nats-trouble.ts";

const heartbeatMsDefault = 5_000;
const connectTimeoutMs = 5_000;
/**
 * Maximum milliseconds that a start waits for the first connection; after that the replica starts
 * without a connection.
 */
const firstConnectMs = 5_000;
const closeTimeoutMs = 2_000;
/** Far below a NATS server's default limit (1 MiB), and large enough for a burst in one message. */
const payloadBytesMax = 65_536;

export async function openNatsBus(options: {
  nats: NatsConfig;
  replicaId: string;
  handlers: BusHandlers;
  log: Logger;
  /** Milliseconds between heartbeats, and maximum milliseconds of an answer. */
  heartbeatMs?: number;
}): Promise<Bus> {
  const { nats, replicaId, log } = options;
  const heartbeatMs = options.heartbeatMs ?? heartbeatMsDefault;
  const everybody = `${nats.subject}.all`;
  const subjectOf = (id: string) => `${nats.subject}.replica.${id}`;
  const stopping = new AbortController();
  let live: NatsConnection | undefined;
  const wake: (() => void)[] = [];

  const connecting = reconnect({
    signal: stopping.signal,
    log,
    lost: "there is no connection to NATS; will try again",
    live: () =>
      liveOnce({
        nats,
        heartbeatMs,
        log,
        stop: stopping.signal,
        subjects: [everybody, subjectOf(replicaId)],
        onMessage: receive,
        onConnected(connection) {
          live = connection;
          for (const resolve of wake.splice(0)) resolve();
          guard(log, () => options.handlers.onResync());
        },
        onLost() {
          live = undefined;
        },
      }),
  });

  /** Resolves with the current connection or the next; with undefined when the bus is closed. */
  async function connected(): Promise<NatsConnection | undefined> {
    while (!live && !stopping.signal.aborted) await new Promise<void>((resolve) => wake.push(resolve));
    return stopping.signal.aborted ? undefined : live;
  }

  function receive(payload: string): void {
    const envelope = readEnvelope<BusMessage>(payload);
    if (!envelope) log.warn({ bytes: payload.length }, "a message of NATS could not be read");
    else if (envelope.from !== replicaId)
      for (const message of envelope.messages) options.handlers.onMessage(message);
  }

  const sender = createBusSender<BusMessage>({
    from: replicaId,
    payloadBytesMax,
    log,
    async publish(batch) {
      const connection = await connected();
      if (!connection) return;
      try {
        await publishAll(connection, batch, heartbeatMs);
      } catch (error) {
        log.warn({ err: error }, "messages were lost; the sweep makes them good");
      }
    },
  });

  // A replica works without NATS, with more delay, so NATS does not hold up a start.
  if (
    !(await within(
      connected().then(() => true),
      firstConnectMs,
    ))
  ) {
    log.warn("NATS cannot be reached; work is found by the sweep until it can");
  }
  return {
    send: (to, message) => sender.enqueue(subjectOf(to), message),
    broadcast: (message) => sender.enqueue(everybody, message),
    isUp: () => live !== undefined,
    async close() {
      if (live) await within(sender.idle(), closeTimeoutMs);
      stopping.abort();
      for (const resolve of wake.splice(0)) resolve();
      await within(connecting, closeTimeoutMs);
    },
  };
}

/**
 * Rejects unless the server confirms in time that it has read the batch. The next batch waits for
 * the confirmation, so the number of unconfirmed messages is limited.
 */
async function publishAll(connection: NatsConnection, batch: BusBatch, timeoutMs: number): Promise<void> {
  for (const [subject, payloads] of batch) {
    for (const payload of payloads) connection.publish(subject, payload);
  }
  await answered(connection, timeoutMs);
}

async function answered(connection: NatsConnection, timeoutMs: number): Promise<void> {
  if (
    !(await within(
      connection.flush().then(() => true),
      timeoutMs,
    ))
  ) {
    throw new Error(`NATS did not answer within ${timeoutMs} ms`);
  }
}

/**
 * One connection's life: resolves with the error that ended the connection, or with undefined after
 * `stop`.
 */
async function liveOnce(options: {
  nats: NatsConfig;
  heartbeatMs: number;
  stop: AbortSignal;
  subjects: string[];
  onConnected(connection: NatsConnection): void;
  onLost(): void;
  onMessage(payload: string): void;
  log: Logger;
}): Promise<unknown> {
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

function guard(log: Logger, call: () => void): void {
  try {
    call();
  } catch (error) {
    log.error({ err: error }, "a listener of the bus failed");
  }
}
