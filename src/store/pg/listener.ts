/**
 * Notifications from PostgreSQL. They are hints: any of them may be lost, and after every
 * (re)connect `onResync` reports possible losses.
 *
 * One dedicated connection, never from a pool: a LISTEN belongs to its connection, and a half-open
 * connection reports nothing by itself. So the connection has a heartbeat with a deadline, and is
 * replaced after a missed deadline.
 */
import { type Kysely, sql } from "kysely";
import pg from "pg";
import type { Logger } from "../../telemetry/log.ts";
import { sleep, within } from "../../time/abort.ts";
import { reconnect } from "../../time/reconnect.ts";
import { connectionOptions } from "./database.ts";
import type { Schema } from "./schema/schema.ts";
import { ofFew } from "./values/unnest.ts";

export type Listener = {
  /** Resolves with the first LISTEN; rejects if the listener is closed before. */
  ready: Promise<void>;
  /** Whether the listener is connected at present, as far as known. */
  isListening(): boolean;
  /** Ends the listener within 2 s; no callback follows. Idempotent. */
  close(): Promise<void>;
};

export type ListenerOptions = {
  url: string;
  /** At most 63 bytes each. */
  channels: string[];
  onNotification: (channel: string, payload: string) => void;
  /** After every (re)connect: earlier notifications may have been missed. */
  onResync: () => void;
  /** Milliseconds between heartbeats, and maximum milliseconds of an answer. */
  heartbeatMs?: number;
  log: Logger;
};

const heartbeatMsDefault = 5_000;
const connectTimeoutMs = 5_000;
const closeTimeoutMs = 2_000;

/** Listens until closed, and reconnects for ever, with full jitter. */
export function openListener(options: ListenerOptions): Listener {
  const stopping = new AbortController();
  let isListening = false;
  let settleReady: { resolve: () => void; reject: (error: Error) => void } | undefined;
  const ready = new Promise<void>((resolve, reject) => {
    settleReady = { resolve, reject };
  });
  // Prevents an unhandled rejection if no caller awaits `ready`.
  ready.catch(() => {});

  const running = reconnect({
    live: async () => {
      const error = await listen(options, stopping.signal, () => {
        isListening = true;
        settleReady?.resolve();
      });
      isListening = false;
      return error;
    },
    signal: stopping.signal,
    log: options.log,
    lost: "the notification connection broke",
  }).then(() => settleReady?.reject(new Error("the listener was closed")));
  return {
    ready,
    isListening: () => isListening,
    close: async () => {
      stopping.abort();
      await within(running, closeTimeoutMs);
    },
  };
}

/**
 * One connection's life: resolves with the error that ended the connection, or with undefined after
 * `stop`.
 */
async function listen(
  options: ListenerOptions,
  stop: AbortSignal,
  onListening: () => void,
): Promise<unknown> {
  const heartbeatMs = options.heartbeatMs ?? heartbeatMsDefault;
  const client = new pg.Client({
    ...connectionOptions({
      url: options.url,
      statementTimeoutMs: heartbeatMs,
      connectTimeoutMs,
      applicationName: "pinion listener",
    }),
    // The client-side deadline of a heartbeat.
    query_timeout: heartbeatMs,
  });
  const broken = new AbortController();
  const over = AbortSignal.any([stop, broken.signal]);
  client.on("error", (error) => broken.abort(error));
  client.on("end", () => broken.abort(new Error("the connection ended")));
  client.on("notification", ({ channel, payload }) => {
    if (!over.aborted) guard(options.log, () => options.onNotification(channel, payload ?? ""));
  });
  // A pending connect does not delay the end.
  const giveUp = () => destroy(client);
  stop.addEventListener("abort", giveUp, { once: true });
  try {
    await client.connect();
    await client.query(
      options.channels.map((channel) => `listen ${pg.escapeIdentifier(channel)}`).join("; "),
    );
    if (over.aborted) return broken.signal.reason;
    onListening();
    guard(options.log, () => options.onResync());
    while (!over.aborted) {
      await sleep(heartbeatMs, over);
      if (!over.aborted) await client.query("select 1");
    }
    return broken.signal.reason;
  } catch (error) {
    return error;
  } finally {
    stop.removeEventListener("abort", giveUp);
    destroy(client);
  }
}

/** At once: a graceful end would wait for a peer that may be gone. */
function destroy(client: pg.Client): void {
  const { connection } = client as unknown as { connection: { stream: { destroy(): void } } };
  connection.stream.destroy();
}

function guard(log: Logger, call: () => void): void {
  try {
    call();
  } catch (error) {
    log.error({ err: error }, "a listener of notifications failed");
  }
}

/** PostgreSQL takes less than 8,000 bytes. */
export const notificationBytesMax = 7_900;

/**
 * Sends payloads in one statement, in order (PostgreSQL drops repeats within a statement). Not
 * within a transaction that writes: commits with notifications are serialized. A payload of more
 * than 7,900 bytes is an error, and then none is sent.
 */
export async function notify(db: Kysely<Schema>, channel: string, payloads: string[]): Promise<void> {
  if (payloads.length === 0) return;
  for (const payload of payloads) {
    const bytes = Buffer.byteLength(payload);
    if (bytes > notificationBytesMax) {
      throw new Error(`a notification of ${bytes} bytes is too large (at most ${notificationBytesMax})`);
    }
  }
  await sql`${ofFew}
    select pg_notify(${channel}, payload) from unnest(${payloads}::text[]) as payload`.execute(db);
}
