import type { Logger } from "../log.ts";
import type { Db } from "../store/database.ts";
import { notificationBytesMax, notify, openListener } from "../store/listener.ts";

/** What happened in an org and is in no log; transients.ts has the rest. */
export type Transient = {
  kind: "run.claimed" | "run.started" | "device.connected" | "device.disconnected";
  /** By the replica's clock, in milliseconds since 1970. */
  at: number;
  deviceId: string;
  replicaId: string;
  epoch: number;
  runId?: string;
  watcherId?: string;
  attempt?: number;
};

/** What replicas tell each other. All of it is a hint that may be lost. */
export type BusMessage =
  /** The device may have work. */
  | { kind: "work"; orgId: string; deviceId: string; isTurn?: true }
  /** Fleet workers of the org may have work. */
  | { kind: "fleet"; orgId: string; isTurn?: true }
  /** The device is to be asked to end an attempt. */
  | { kind: "cancel"; orgId: string; deviceId: string; runId: string; attemptToken: string; reason: string }
  /** An attempt of the device was settled elsewhere. */
  | { kind: "settled"; orgId: string; deviceId: string; attemptToken: string }
  /** The device has a session with this epoch now; an older one ends. */
  | { kind: "replaced"; orgId: string; deviceId: string; epoch: number }
  /** The device's session with this epoch is to be drained, or an older one. */
  | { kind: "disconnect"; orgId: string; deviceId: string; epoch: number; reason: "operator" | "revoked" }
  /** A token is good no more. */
  | { kind: "revoked"; tokenId: string }
  /** Events were appended. */
  | { kind: "events"; orgId: string }
  /** Somebody watches a run on that replica, for the next minute; `isFirst`: it has nothing of the output yet. */
  | { kind: "watch"; orgId: string; runId: string; replicaId: string; isFirst: boolean }
  /** Nobody watches it there any more. */
  | { kind: "unwatch"; orgId: string; runId: string; replicaId: string }
  /** A watched run is somewhere else in its life. */
  | { kind: "run"; orgId: string; runId: string }
  /** Somebody watches the org's transient events on that replica, for the next minute; transients.ts has the rest. */
  | { kind: "watch_org"; orgId: string; replicaId: string }
  /** Nobody watches them there any more. */
  | { kind: "unwatch_org"; orgId: string; replicaId: string }
  /** A replica that has just begun to listen asks who watches what. */
  | { kind: "who_watches"; replicaId: string }
  /** What was sent so far of an org that is watched. */
  | { kind: "org_heard"; orgId: string; from: string; relayId: string; sequence: number }
  /** Transient events of an org that is watched. */
  | {
      kind: "transients";
      orgId: string;
      from: string;
      relayId: string;
      sequence: number;
      events: Transient[];
    }
  /** A watched run's output; `data` in base64. */
  | {
      kind: "output";
      orgId: string;
      runId: string;
      attempt: number;
      sequence: number;
      stream: number;
      data: string;
    };

/** How replicas hear of each other's commits. PostgreSQL's notifications are one implementation. */
export type Bus = {
  /** To one replica. Never waits. */
  send(replicaId: string, message: BusMessage): void;
  /** To all others. */
  broadcast(message: BusMessage): void;
  /** Whether it hears of the others' commits at this moment, as far as it knows. */
  isUp(): boolean;
  close(): Promise<void>;
};

export type BusHandlers = {
  onMessage(message: BusMessage): void;
  /** Messages may have been missed: look at the database. */
  onResync(): void;
};

/** Messages that may wait to be sent; what comes beyond is dropped, and the sweep makes it good. */
const messagesWaitingMax = 50_000;

/** Output is droppable, and must not keep control waiting. */
const outputWaitingBytesMax = 1_048_576;

const everybody = "pinion_all";
const channelOf = (replicaId: string) => `pinion_${replicaId}`;

/**
 * The bus over LISTEN/NOTIFY. What is sent while a statement is under way is packed into the next one, so a burst costs
 * a few notifications. Nothing here is sent inside a transaction that writes: NOTIFY takes a global lock at its commit.
 */
export async function openPostgresBus(options: {
  db: Db;
  /** Not through a pooler: LISTEN belongs to its connection. */
  listenUrl: string;
  replicaId: string;
  handlers: BusHandlers;
  log: Logger;
}): Promise<Bus> {
  const { db, replicaId, handlers, log } = options;
  let waiting = new Map<string, string[]>();
  let count = 0;
  /** Output waits apart, and goes when nothing else does. */
  let output = new Map<string, string[]>();
  let outputBytes = 0;
  let sending: Promise<void> | undefined;

  const listener = openListener({
    url: options.listenUrl,
    channels: [everybody, channelOf(replicaId)],
    log,
    onResync: handlers.onResync,
    onNotification(_, payload) {
      const envelope = parse(payload);
      if (!envelope) {
        log.warn({ bytes: payload.length }, "a notification could not be read");
        return;
      }
      if (envelope.from === replicaId) return;
      for (const message of envelope.messages) handlers.onMessage(message);
    },
  });
  await listener.ready;

  async function flush(): Promise<void> {
    await Promise.resolve();
    while (count > 0 || outputBytes > 0) {
      const batch = count > 0 ? waiting : output;
      if (count > 0) {
        waiting = new Map();
        count = 0;
      } else {
        output = new Map();
        outputBytes = 0;
      }
      for (const [channel, messages] of batch) {
        try {
          await notify(db, channel, pack(replicaId, messages));
        } catch (error) {
          log.warn(
            { err: error, messages: messages.length },
            "notifications were lost; the sweep makes them good",
          );
        }
      }
    }
    // In the same turn as the last look: what is sent later starts anew.
    sending = undefined;
  }

  function enqueue(channel: string, message: BusMessage): void {
    const isOutput = message.kind === "output";
    if (isOutput ? outputBytes >= outputWaitingBytesMax : count >= messagesWaitingMax) return;
    const text = JSON.stringify(message);
    if (Buffer.byteLength(text) > notificationBytesMax - envelopeBytes) {
      log.warn({ kind: message.kind }, "a message was too large for a notification");
      return;
    }
    const lane = isOutput ? output : waiting;
    const messages = lane.get(channel) ?? [];
    if (messages.length === 0) lane.set(channel, messages);
    // Rings of the same bell count once.
    if (messages.at(-1) === text) return;
    messages.push(text);
    if (isOutput) outputBytes += text.length;
    else count += 1;
    sending ??= flush();
  }

  return {
    send: (to, message) => enqueue(channelOf(to), message),
    broadcast: (message) => enqueue(everybody, message),
    isUp: () => listener.isListening(),
    async close() {
      while (sending) await sending;
      await listener.close();
    },
  };
}

const envelopeBytes = 100;

/** Packs messages into as few payloads as their size allows. */
function pack(from: string, messages: readonly string[]): string[] {
  const payloads: string[] = [];
  let part: string[] = [];
  let bytes = envelopeBytes;
  const seal = () => payloads.push(`{"from":${JSON.stringify(from)},"messages":[${part.join(",")}]}`);
  for (const message of messages) {
    const size = Buffer.byteLength(message) + 1;
    if (part.length > 0 && bytes + size > notificationBytesMax) {
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

function parse(payload: string): { from: string; messages: BusMessage[] } | undefined {
  try {
    return JSON.parse(payload);
  } catch {
    return undefined;
  }
}
