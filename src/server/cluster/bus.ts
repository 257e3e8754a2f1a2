import type { Db } from "../../store/pg/database.ts";
import { notificationBytesMax, notify, openListener } from "../../store/pg/listener.ts";
import type { WorkKind } from "../../store/work/attempts/active.ts";
import type { Logger } from "../../telemetry/log.ts";

/** A transient event: a change in an org that no log stores; transients.ts has the rest. */
export type Transient = {
  kind: "run.claimed" | "run.started" | "device.connected" | "device.disconnected";
  /** By the replica's clock, in milliseconds since 1970. */
  at: number;
  deviceId: string;
  replicaId: string;
  epoch: number;
  workId?: string;
  watcherId?: string;
  attempt?: number;
};

/** The messages between replicas. Every message is a hint and may be lost. */
export type BusMessage =
  /** The device may have work of a kind. */
  | { kind: "work"; of: WorkKind; orgId: string; deviceId: string }
  /** Fleet workers of the org may have work of a kind. */
  | { kind: "fleet"; of: WorkKind; orgId: string }
  /** Runs of the org wait to be placed. */
  | { kind: "held"; orgId: string }
  /** The device is to be asked to end an attempt. */
  | { kind: "cancel"; orgId: string; deviceId: string; workId: string; attemptToken: string; reason: string }
  /** An attempt of the device was settled elsewhere. */
  | { kind: "settled"; orgId: string; deviceId: string; attemptToken: string }
  /** A question of the device's agent has ended. */
  | {
      kind: "answer";
      orgId: string;
      deviceId: string;
      workId: string;
      attemptToken: string;
      questionId: string;
      optionId: string;
      text: string;
      isDefault: boolean;
    }
  /** A person on the named replica wants the end of the device's log. */
  | {
      kind: "log_wanted";
      orgId: string;
      deviceId: string;
      requestId: string;
      linesMax: number;
      replyTo: string;
    }
  /** A piece of a device's log, in base64, for the replica that asked. */
  | {
      kind: "log_piece";
      orgId: string;
      requestId: string;
      index: number;
      count: number;
      data: string;
      isTruncated: boolean;
    }
  /** The device now has the named session; an older session ends. */
  | { kind: "replaced"; orgId: string; deviceId: string; epoch: number; sessionId: string }
  /** The device's session with the named epoch, or an older epoch, is to be drained. */
  | { kind: "disconnect"; orgId: string; deviceId: string; epoch: number; reason: "operator" | "revoked" }
  /** A platform owes a reply, or starts or stops. */
  | { kind: "platform"; orgId: string; stableId: string; about: "reply" | "state" }
  /** A token has ended. */
  | { kind: "revoked"; tokenId: string }
  /** Events were appended. */
  | { kind: "events"; orgId: string }
  /**
   * A client watches a run on the named replica, for the next minute; `isFirst`: the replica has no
   * output of the run yet.
   */
  | { kind: "watch"; orgId: string; workId: string; replicaId: string; isFirst: boolean }
  /** No client watches the run on the named replica any more. */
  | { kind: "unwatch"; orgId: string; workId: string; replicaId: string }
  /**
   * An attempt of a run or a turn was taken away; the replica that has output of the attempt stores
   * the output's end.
   */
  | { kind: "tail"; of: WorkKind; orgId: string; workId: string; attempt: number }
  /** A watched run or turn changed its state. */
  | { kind: "work_changed"; orgId: string; workId: string }
  /**
   * A client watches the org's transient events on the named replica, for the next minute;
   * transients.ts has the rest.
   */
  | { kind: "watch_org"; orgId: string; replicaId: string }
  /** No client watches the org on the named replica any more. */
  | { kind: "unwatch_org"; orgId: string; replicaId: string }
  /** A replica that has just begun to listen asks the others for the runs and orgs they watch. */
  | { kind: "who_watches"; replicaId: string }
  /** The number of the last message sent about a watched org. */
  | { kind: "org_heard"; orgId: string; from: string; relayId: string; sequence: number }
  /** Transient events of a watched org. */
  | {
      kind: "transients";
      orgId: string;
      from: string;
      relayId: string;
      sequence: number;
      events: Transient[];
    }
  /** A watched run's output, or its agent's activity; `data` in base64. */
  | {
      kind: "output";
      orgId: string;
      workId: string;
      deviceId: string;
      attempt: number;
      /**
       * In decimal: JSON has no numbers of 64 bits. A replica of an older version sends a number.
       */
      sequence: string | number;
      stream: number;
      data: string;
    };

/** Messages between replicas about commits: PostgreSQL's notifications, or NATS (bus-nats.ts). */
export type Bus = {
  /** Sends to one replica. Never waits. */
  send(replicaId: string, message: BusMessage): void;
  /** To all others. */
  broadcast(message: BusMessage): void;
  /**
   * Whether the replica receives the other replicas' messages at present, as far as the bus knows.
   */
  isUp(): boolean;
  close(): Promise<void>;
};

export type BusHandlers = {
  onMessage(message: BusMessage): void;
  /** Messages may have been missed: look at the database. */
  onResync(): void;
};

const everybody = "pinion_all";
const channelOf = (replicaId: string) => `pinion_${replicaId}`;

/**
 * The bus over LISTEN/NOTIFY. Messages sent during a statement are packed into the next statement,
 * so a burst costs a few notifications. No message is sent inside a transaction that writes: NOTIFY
 * takes a global lock at its commit.
 */
export async function openPostgresBus(options: {
  db: Db;
  /** Not through a pooler: LISTEN belongs to its connection. */
  listenUrl: string;
  replicaId: string;
  handlers: BusHandlers;
  log: Logger;
  /** Milliseconds between heartbeats, and maximum milliseconds of an answer. */
  heartbeatMs?: number;
}): Promise<Bus> {
  const { db, replicaId, handlers, log } = options;
  const listener = openListener({
    url: options.listenUrl,
    channels: [everybody, channelOf(replicaId)],
    log,
    ...(options.heartbeatMs ? { heartbeatMs: options.heartbeatMs } : {}),
    onResync: handlers.onResync,
    onNotification(_, payload) {
      const envelope = readEnvelope<BusMessage>(payload);
      if (!envelope) {
        log.warn({ bytes: payload.length }, "a notification could not be read");
        return;
      }
      if (envelope.from === replicaId) return;
      for (const message of envelope.messages) handlers.onMessage(message);
    },
  });
  await listener.ready;

  const sender = createBusSender({
    from: replicaId,
    payloadBytesMax: notificationBytesMax,
    log,
    async publish(batch) {
      for (const [channel, payloads] of batch) {
        await notify(db, channel, payloads).catch((error) =>
          log.warn({ err: error }, "notifications were lost; the sweep makes them good"),
        );
      }
    },
  });
  return {
    send: (to, message) => sender.enqueue(channelOf(to), message),
    broadcast: (message) => sender.enqueue(everybody, message),
    isUp: () => listener.isListening(),
    async close() {
      await sender.idle();
      await listener.close();
    },
  };
}

/**
 * The send queue of a bus, for both kinds of bus. While one batch is being sent, new messages are
 * packed into the next batch. Control messages go first. Output waits in a queue of its own and is
 * sent when no control message waits. Both queues have a limit, and messages beyond it are dropped:
 * the sweep finds the work of dropped control messages.
 */

/** By channel, the payloads in the order of sending. */
export type BusBatch = ReadonlyMap<string, string[]>;

export type BusSender<Message> = {
  /** Never waits. */
  enqueue(channel: string, message: Message): void;
  /** Resolves when nothing waits. */
  idle(): Promise<void>;
};

const messagesWaitingMax = 50_000;
const outputWaitingBytesMax = 1_048_576;
/** The bytes around the messages of a payload. */
const envelopeBytes = 100;

export function createBusSender<Message extends { kind: string }>(options: {
  /** The sending replica. */
  from: string;
  payloadBytesMax: number;
  /** Sends a batch. Logs lost messages itself and does not reject. */
  publish(batch: BusBatch): Promise<void>;
  log: Logger;
}): BusSender<Message> {
  const { from, payloadBytesMax, log } = options;
  let control = new Map<string, string[]>();
  let count = 0;
  let output = new Map<string, string[]>();
  let outputBytes = 0;
  let sending: Promise<void> | undefined;

  async function flush(): Promise<void> {
    await Promise.resolve();
    while (count > 0 || outputBytes > 0) {
      const batch = count > 0 ? control : output;
      if (count > 0) {
        control = new Map();
        count = 0;
      } else {
        output = new Map();
        outputBytes = 0;
      }
      await options.publish(
        new Map([...batch].map(([channel, messages]) => [channel, pack(from, messages, payloadBytesMax)])),
      );
    }
    // In the same turn as the last check of the queues: a message sent later starts a new flush.
    sending = undefined;
  }

  return {
    enqueue(channel, message) {
      const isOutput = message.kind === "output";
      if (isOutput ? outputBytes >= outputWaitingBytesMax : count >= messagesWaitingMax) return;
      const text = JSON.stringify(message);
      if (Buffer.byteLength(text) > payloadBytesMax - envelopeBytes) {
        log.warn({ kind: message.kind }, "a message was too large for the bus");
        return;
      }
      const lane = isOutput ? output : control;
      const messages = lane.get(channel) ?? [];
      if (messages.length === 0) lane.set(channel, messages);
      // Rings of the same bell count once.
      if (messages.at(-1) === text) return;
      messages.push(text);
      if (isOutput) outputBytes += text.length;
      else count += 1;
      sending ??= flush();
    },
    async idle() {
      while (sending) await sending;
    },
  };
}

/** Packs messages into as few payloads as their size allows. */
function pack(from: string, messages: readonly string[], payloadBytesMax: number): string[] {
  const payloads: string[] = [];
  let part: string[] = [];
  let bytes = envelopeBytes;
  const seal = () => payloads.push(`{"from":${JSON.stringify(from)},"messages":[${part.join(",")}]}`);
  for (const message of messages) {
    const size = Buffer.byteLength(message) + 1;
    if (part.length > 0 && bytes + size > payloadBytesMax) {
      seal();
      part = [];
      bytes = envelopeBytes;
    }
    part.push(message);
    bytes += size;
  }
  if (part.length > 0) seal();
  return payloads;
}

/** The content of a payload; undefined for a payload that no replica made. */
export function readEnvelope<Message>(payload: string): { from: string; messages: Message[] } | undefined {
  try {
    const envelope: unknown = JSON.parse(payload);
    return isEnvelope(envelope) ? (envelope as { from: string; messages: Message[] }) : undefined;
  } catch {
    return undefined;
  }
}

function isEnvelope(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return false;
  const { from, messages } = value as { from?: unknown; messages?: unknown };
  return typeof from === "string" && Array.isArray(messages) && messages.every(isMessage);
}

function isMessage(value: unknown): boolean {
  return (
    typeof value === "object" && value !== null && typeof (value as { kind?: unknown }).kind === "string"
  );
}
