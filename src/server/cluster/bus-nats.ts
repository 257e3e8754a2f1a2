/**
 * The bus over NATS, for fleets beyond the capacity of PostgreSQL's notifications. Core NATS only:
 * NATS stores nothing, and the sweep finds the work of lost messages.
 *
 * After every connect of the line (nats-line.ts) `onResync` reports that messages may have been
 * missed. Without a connection, control messages wait within their limit and are sent later.
 */
import type { NatsConnection } from "@nats-io/transport-node";
import type { NatsConfig } from "../../config.ts";
import type { Logger } from "../../telemetry/log.ts";
import { within } from "../../time/abort.ts";
import {
  type Bus,
  type BusBatch,
  type BusHandlers,
  type BusMessage,
  createBusSender,
  readEnvelope,
} from "./bus.ts";
import { answered, closeTimeoutMs, guard, openLine } from "./nats-line.ts";

const heartbeatMsDefault = 5_000;
/**
 * Maximum milliseconds that a start waits for the first connection; after that the replica starts
 * without a connection.
 */
const firstConnectMs = 5_000;
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
  const { nats, replicaId, handlers, log, heartbeatMs = heartbeatMsDefault } = options;
  const everybody = `${nats.subject}.all`;
  const subjectOf = (id: string) => `${nats.subject}.replica.${id}`;
  const subjects = [everybody, subjectOf(replicaId)];
  const line = openLine({
    ...{ nats, heartbeatMs, log, subjects },
    onMessage: (payload) => takePayload(payload, options),
    onConnected: () => guard(log, () => handlers.onResync()),
  });
  const sender = createBusSender<BusMessage>({
    from: replicaId,
    payloadBytesMax,
    log,
    async publish(batch) {
      const connection = await line.connected();
      if (!connection) return;
      try {
        await publishAll(connection, batch, heartbeatMs);
      } catch (error) {
        log.warn({ err: error }, "messages were lost; the sweep makes them good");
      }
    },
  });

  // A replica works without NATS, with more delay, so NATS does not hold up a start.
  const isConnected = await within(
    line.connected().then(() => true),
    firstConnectMs,
  );
  if (!isConnected) log.warn("NATS cannot be reached; work is found by the sweep until it can");
  return {
    send: (to, message) => sender.enqueue(subjectOf(to), message),
    broadcast: (message) => sender.enqueue(everybody, message),
    isUp: line.isUp,
    async close() {
      if (line.isUp()) await within(sender.idle(), closeTimeoutMs);
      await line.close();
    },
  };
}

/** Hands the messages of another replica's payload to the handlers. */
function takePayload(
  payload: string,
  { replicaId, handlers, log }: { replicaId: string; handlers: BusHandlers; log: Logger },
): void {
  const envelope = readEnvelope<BusMessage>(payload);
  if (!envelope) log.warn({ bytes: payload.length }, "a message of NATS could not be read");
  else if (envelope.from !== replicaId) for (const message of envelope.messages) handlers.onMessage(message);
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
